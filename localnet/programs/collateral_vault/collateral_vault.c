/*
 * collateral_vault: SPL-token collateral, one vault per owner.
 *
 * A vault's tokens lie in the associated token account of its PDA; the vault says how many of them are locked. Owners
 * deposit and withdraw what is available; authorised programs lock, unlock and transfer what their users trade with.
 * Where withdrawals have a delay they are requested first, which locks them, and executed later by anybody.
 *
 * Anchor's order holds in every instruction: arguments, accounts, then state. total = locked + available at every end
 * of an instruction; tokens that somebody sends to a token account directly belong to no balance and stay there.
 */
#include "anchor.h"
#include "borsh.h"
#include "system.h"
#include "token.h"

#define DECIMALS 6
#define AUTHORIZED_PROGRAMS_MAX 10
#define ACCOUNTS_MAX 16 /* what is kept of an instruction's accounts; those after it are of no use here */

static const char VAULT_SEED[] = {'v', 'a', 'u', 'l', 't'};
static const char AUTHORITY_SEED[] = {'v', 'a', 'u', 'l', 't', '_', 'a', 'u', 't', 'h', 'o', 'r', 'i', 't', 'y'};
static const char REQUEST_SEED[] = {'w', 'i', 't', 'h', 'd', 'r', 'a', 'w'};
static const char CALLER_SEED[] = {'c', 'p', 'i', '_', 'a', 'u', 't', 'h', 'o', 'r', 'i', 't', 'y'};

/* -- layouts: accounts, arguments, events ------------------------------------------------------------------------- */

typedef struct PACKED {
    u64 discriminator;
    Pubkey owner, token_account;
    u64 total_balance, locked_balance, available_balance, total_deposited, total_withdrawn;
    i64 created_at;
    u64 next_request;
    u8 bump;
} CollateralVault;
_Static_assert(sizeof(CollateralVault) == SIZE_COLLATERAL_VAULT, "the IDL's size");

/* discriminator, admin, mint, vector at its longest, withdraw_min_delay, paused, bump */
#define VAULT_AUTHORITY_BYTES (8 + 32 + 32 + 4 + 32 * AUTHORIZED_PROGRAMS_MAX + 8 + 1 + 1)

/* Decoded: the length of the vector moves what comes after it. What is pointed at lies in the account. */
typedef struct {
    const Pubkey *admin, *mint, *programs;
    u64 program_count;
    i64 withdraw_min_delay;
    u8 *paused;
    u8 bump;
} VaultAuthority;

typedef struct PACKED {
    u64 discriminator;
    Pubkey vault, owner;
    u64 id, amount;
    i64 unlock_at;
    u8 bump;
} WithdrawRequest;
_Static_assert(sizeof(WithdrawRequest) == SIZE_WITHDRAW_REQUEST, "the IDL's size");

/* The one argument of most instructions: an amount in base units, or a request's id. */
typedef struct PACKED {
    u64 value;
} U64Argument;

typedef struct PACKED {
    u64 discriminator;
    Pubkey user, vault;
    i64 timestamp;
} VaultInitialized;
_Static_assert(sizeof(VaultInitialized) == SIZE_VAULT_INITIALIZED, "the IDL's size");

/* DepositEvent, WithdrawEvent: `balance` is the new total; LockEvent, UnlockEvent: what is locked now. */
typedef struct PACKED {
    u64 discriminator;
    Pubkey user, vault;
    u64 amount, balance;
    i64 timestamp;
} BalanceEvent;
_Static_assert(sizeof(BalanceEvent) == SIZE_DEPOSIT_EVENT, "the IDL's size");
_Static_assert(sizeof(BalanceEvent) == SIZE_WITHDRAW_EVENT, "the IDL's size");
_Static_assert(sizeof(BalanceEvent) == SIZE_LOCK_EVENT, "the IDL's size");
_Static_assert(sizeof(BalanceEvent) == SIZE_UNLOCK_EVENT, "the IDL's size");

/* WithdrawRequested: `time` is unlock_at; WithdrawCancelled: the timestamp. */
typedef struct PACKED {
    u64 discriminator;
    Pubkey user, vault;
    u64 id, amount;
    i64 time;
} RequestEvent;
_Static_assert(sizeof(RequestEvent) == SIZE_WITHDRAW_REQUESTED, "the IDL's size");
_Static_assert(sizeof(RequestEvent) == SIZE_WITHDRAW_CANCELLED, "the IDL's size");

typedef struct PACKED {
    u64 discriminator;
    Pubkey from_user, to_user, from_vault, to_vault;
    u64 amount;
    i64 timestamp;
} TransferEvent;
_Static_assert(sizeof(TransferEvent) == SIZE_TRANSFER_EVENT, "the IDL's size");

typedef struct PACKED {
    u64 discriminator;
    Pubkey admin;
    u8 paused;
    i64 timestamp;
} PausedSet;
_Static_assert(sizeof(PausedSet) == SIZE_PAUSED_SET, "the IDL's size");

/* -- accounts ----------------------------------------------------------------------------------------------------- */

/* The vault in `account`: ours, of that type, at the address its own fields name. */
NOINLINE u64 load_vault(const Context *context, u64 account, CollateralVault **vault) {
    TRY(check_type(context, account, ACCOUNT_COLLATERAL_VAULT));
    const AccountInfo *info = &context->accounts[account];
    CollateralVault *state = (CollateralVault *)info->data;
    if (data_len(info) < sizeof *state) return fail_account(context, account, ERROR_ACCOUNT_DID_NOT_DESERIALIZE);
    Slice seeds[] = {{VAULT_SEED, sizeof VAULT_SEED}, {&state->owner, sizeof(Pubkey)}, {&state->bump, 1}};
    TRY(check_pda(context, account, seeds, COUNT(seeds)));
    *vault = state;
    return 0;
}

/* The vault in `account`, and the account `owner` is its owner. */
NOINLINE u64 load_owned_vault(const Context *context, u64 account, u64 owner, CollateralVault **vault) {
    TRY(load_vault(context, account, vault));
    const Pubkey *key = context->accounts[owner].key;
    if (keys_equal(key, &(*vault)->owner)) return 0;
    return fail_keys(context, owner, ERROR_UNAUTHORIZED_OWNER, key, &(*vault)->owner);
}

/* The program's one settings account. */
NOINLINE u64 load_authority(const Context *context, u64 account, VaultAuthority *authority) {
    TRY(check_type(context, account, ACCOUNT_VAULT_AUTHORITY));
    const AccountInfo *info = &context->accounts[account];
    BorshReader reader = {info->data + 8, info->data + data_len(info), false};
    authority->admin = (const Pubkey *)read_bytes(&reader, sizeof(Pubkey));
    authority->mint = (const Pubkey *)read_bytes(&reader, sizeof(Pubkey));
    authority->programs = read_keys(&reader, &authority->program_count);
    authority->withdraw_min_delay = (i64)read_u64(&reader);
    authority->paused = (u8 *)reader.at;
    read_bool(&reader);
    authority->bump = read_u8(&reader);
    if (reader.failed) return fail_account(context, account, ERROR_ACCOUNT_DID_NOT_DESERIALIZE);
    Slice seeds[] = {{AUTHORITY_SEED, sizeof AUTHORITY_SEED}, {&authority->bump, 1}};
    return check_pda(context, account, seeds, COUNT(seeds));
}

/* Request `id` of the vault at index `vault`, at its own address. */
NOINLINE u64 load_request(const Context *context, u64 account, u64 vault, const U64Argument *id,
                          WithdrawRequest **request) {
    TRY(check_type(context, account, ACCOUNT_WITHDRAW_REQUEST));
    const AccountInfo *info = &context->accounts[account];
    WithdrawRequest *state = (WithdrawRequest *)info->data;
    if (data_len(info) < sizeof *state) return fail_account(context, account, ERROR_ACCOUNT_DID_NOT_DESERIALIZE);
    Slice seeds[] = {{REQUEST_SEED, sizeof REQUEST_SEED},
                     {context->accounts[vault].key, sizeof(Pubkey)},
                     {&id->value, sizeof id->value},
                     {&state->bump, 1}};
    TRY(check_pda(context, account, seeds, COUNT(seeds)));
    TRY(check_has_one(context, account, &state->vault, vault));
    *request = state;
    return 0;
}

/* `token_account` is the one the vault in `account` keeps its tokens in, still of the mint and the vault's own. */
NOINLINE u64 check_vault_tokens(const Context *context, u64 account, u64 token_account, const Pubkey *mint) {
    const CollateralVault *vault = (const CollateralVault *)context->accounts[account].data;
    TRY(check_has_one(context, account, &vault->token_account, token_account));
    return check_token_account(context, token_account, mint, context->accounts[account].key);
}

/* Lock, unlock and transfer begin with the same three accounts. */
enum { CALLER_AUTHORITY, CALLER_PROGRAM, CALLER_SETTINGS };
#define BEGINS_WITH_CALLER(INSTRUCTION)                                  \
    _Static_assert(CALLER_AUTHORITY == INSTRUCTION##_CALLER_AUTHORITY && \
                       CALLER_PROGRAM == INSTRUCTION##_CALLER_PROGRAM && \
                       CALLER_SETTINGS == INSTRUCTION##_VAULT_AUTHORITY, \
                   "the IDL's order")
BEGINS_WITH_CALLER(LOCK_COLLATERAL);
BEGINS_WITH_CALLER(UNLOCK_COLLATERAL);
BEGINS_WITH_CALLER(TRANSFER_COLLATERAL);

/*
 * The caller is an authorised program: its PDA signed, which nobody else can make it do. The PDA is derived under the
 * program that was given, so that one authorised program cannot speak for another.
 */
NOINLINE u64 load_caller(const Context *context, VaultAuthority *authority) {
    TRY(load_authority(context, CALLER_SETTINGS, authority));
    const Pubkey *program = context->accounts[CALLER_PROGRAM].key;
    bool is_authorized = false;
    for (u64 i = 0; i < authority->program_count; i++) is_authorized |= keys_equal(&authority->programs[i], program);
    if (!is_authorized) return fail_account(context, CALLER_PROGRAM, ERROR_UNAUTHORIZED_PROGRAM);
    const Pubkey *key = context->accounts[CALLER_AUTHORITY].key;
    Pubkey expected;
    u8 bump;
    Slice seed = {CALLER_SEED, sizeof CALLER_SEED};
    if (sol_try_find_program_address(&seed, 1, program, &expected, &bump))
        return fail_account(context, CALLER_AUTHORITY, ERROR_CONSTRAINT_SEEDS);
    if (keys_equal(key, &expected)) return 0;
    return fail_keys(context, CALLER_AUTHORITY, ERROR_CONSTRAINT_SEEDS, key, &expected);
}

/* -- balances ----------------------------------------------------------------------------------------------------- */

#define ADD(balance, amount)                                                                       \
    do {                                                                                           \
        u64 sum_;                                                                                  \
        if (__builtin_add_overflow(balance, (u64)(amount), &sum_)) return fail(ERROR_OVERFLOW);    \
        balance = sum_;                                                                            \
    } while (0)

#define SUBTRACT(balance, amount)                                                                  \
    do {                                                                                           \
        u64 rest_;                                                                                 \
        if (__builtin_sub_overflow(balance, (u64)(amount), &rest_)) return fail(ERROR_UNDERFLOW);  \
        balance = rest_;                                                                           \
    } while (0)

/* Tokens come in, to what is available. */
NOINLINE u64 credit(CollateralVault *vault, u64 amount) {
    ADD(vault->total_balance, amount);
    ADD(vault->available_balance, amount);
    return 0;
}

NOINLINE u64 lock(CollateralVault *vault, u64 amount) {
    if (vault->available_balance < amount) return fail(ERROR_INSUFFICIENT_AVAILABLE_BALANCE);
    vault->available_balance -= amount;
    ADD(vault->locked_balance, amount);
    return 0;
}

NOINLINE u64 unlock(CollateralVault *vault, u64 amount) {
    if (vault->locked_balance < amount) return fail(ERROR_INSUFFICIENT_LOCKED_BALANCE);
    vault->locked_balance -= amount;
    ADD(vault->available_balance, amount);
    return 0;
}

/* Tokens go out, of what is locked. */
NOINLINE u64 debit_locked(CollateralVault *vault, u64 amount) {
    if (vault->locked_balance < amount) return fail(ERROR_INSUFFICIENT_LOCKED_BALANCE);
    vault->locked_balance -= amount;
    SUBTRACT(vault->total_balance, amount);
    return 0;
}

/* Send tokens of a vault, for which its PDA signs. The transfer's authority is the vault's index. */
NOINLINE u64 pay_out(const Context *context, const CollateralVault *vault, const TokenTransfer *transfer) {
    Slice seeds[] = {{VAULT_SEED, sizeof VAULT_SEED}, {&vault->owner, sizeof(Pubkey)}, {&vault->bump, 1}};
    Slice signer = {seeds, COUNT(seeds)};
    return transfer_tokens(context, transfer, &signer);
}

NOINLINE void emit_balance(u64 discriminator, const Pubkey *vault_key, const CollateralVault *vault, u64 amount,
                           u64 balance) {
    BalanceEvent event = {discriminator, vault->owner, *vault_key, amount, balance, unix_timestamp()};
    EMIT(event);
}

/* What any withdrawal ends with: books, tokens, event. The amount has left the balances already. */
NOINLINE u64 finish_withdraw(const Context *context, CollateralVault *vault, const TokenTransfer *transfer) {
    ADD(vault->total_withdrawn, transfer->amount);
    TRY(pay_out(context, vault, transfer));
    emit_balance(EVENT_WITHDRAW_EVENT, context->accounts[transfer->authority].key, vault, transfer->amount,
                 vault->total_balance);
    return 0;
}

/* What an instruction with one number begins with: that number, then its accounts. */
#define TAKE(context, INSTRUCTION, arguments)                                      \
    do {                                                                           \
        arguments = ARGUMENTS(context, __typeof__(*arguments));                    \
        if (!arguments) return fail(ERROR_INSTRUCTION_DID_NOT_DESERIALIZE);        \
        CHECK_ACCOUNTS(context, INSTRUCTION);                                      \
    } while (0)

/* -- instructions: settings and vaults ---------------------------------------------------------------------------- */

NOINLINE u64 initialize_vault_authority(Context *context) {
    LOG("Instruction: InitializeVaultAuthority");
    BorshReader arguments = {context->data + 8, context->data + context->data_len, false};
    u64 program_count;
    const Pubkey *programs = read_keys(&arguments, &program_count);
    i64 withdraw_min_delay = (i64)read_u64(&arguments);
    if (arguments.failed) return fail(ERROR_INSTRUCTION_DID_NOT_DESERIALIZE);
    CHECK_ACCOUNTS(context, INITIALIZE_VAULT_AUTHORITY);
    u8 bump;
    Slice seeds[2] = {{AUTHORITY_SEED, sizeof AUTHORITY_SEED}};
    TRY(find_pda(context, INITIALIZE_VAULT_AUTHORITY_VAULT_AUTHORITY, seeds, 1, &bump));
    TRY(check_mint(context, INITIALIZE_VAULT_AUTHORITY_MINT, DECIMALS));

    if (withdraw_min_delay < 0) return fail(ERROR_INVALID_AMOUNT);
    if (program_count > AUTHORIZED_PROGRAMS_MAX) /* no room for more: as Anchor fails when it writes the account */
        return fail_account(context, INITIALIZE_VAULT_AUTHORITY_VAULT_AUTHORITY, ERROR_ACCOUNT_DID_NOT_SERIALIZE);
    Slice signer = {seeds, COUNT(seeds)};
    TRY(create_pda(context, INITIALIZE_VAULT_AUTHORITY_ADMIN, INITIALIZE_VAULT_AUTHORITY_VAULT_AUTHORITY,
                   VAULT_AUTHORITY_BYTES, &signer));
    u8 *data = context->accounts[INITIALIZE_VAULT_AUTHORITY_VAULT_AUTHORITY].data;
    BorshWriter writer = {data, data + VAULT_AUTHORITY_BYTES, false};
    write_u64(&writer, ACCOUNT_VAULT_AUTHORITY);
    write_key(&writer, context->accounts[INITIALIZE_VAULT_AUTHORITY_ADMIN].key);
    write_key(&writer, context->accounts[INITIALIZE_VAULT_AUTHORITY_MINT].key);
    write_keys(&writer, programs, program_count);
    write_u64(&writer, (u64)withdraw_min_delay);
    write_u8(&writer, false);
    write_u8(&writer, bump);
    return 0;
}

NOINLINE u64 set_paused(Context *context) {
    LOG("Instruction: SetPaused");
    BorshReader arguments = {context->data + 8, context->data + context->data_len, false};
    bool paused = read_bool(&arguments);
    if (arguments.failed) return fail(ERROR_INSTRUCTION_DID_NOT_DESERIALIZE);
    CHECK_ACCOUNTS(context, SET_PAUSED);
    VaultAuthority authority;
    TRY(load_authority(context, SET_PAUSED_VAULT_AUTHORITY, &authority));
    TRY(check_has_one(context, SET_PAUSED_VAULT_AUTHORITY, authority.admin, SET_PAUSED_ADMIN));
    *authority.paused = paused;

    PausedSet event = {EVENT_PAUSED_SET, *authority.admin, paused, unix_timestamp()};
    EMIT(event);
    return 0;
}

NOINLINE u64 initialize_vault(Context *context) {
    LOG("Instruction: InitializeVault");
    CHECK_ACCOUNTS(context, INITIALIZE_VAULT);
    const Pubkey *owner = context->accounts[INITIALIZE_VAULT_OWNER].key;
    const AccountInfo *info = &context->accounts[INITIALIZE_VAULT_VAULT];
    const Pubkey *mint = context->accounts[INITIALIZE_VAULT_MINT].key;
    u8 bump;
    Slice seeds[3] = {{VAULT_SEED, sizeof VAULT_SEED}, {owner, sizeof(Pubkey)}};
    TRY(find_pda(context, INITIALIZE_VAULT_VAULT, seeds, 2, &bump));
    VaultAuthority authority;
    TRY(load_authority(context, INITIALIZE_VAULT_VAULT_AUTHORITY, &authority));
    TRY(check_has_one(context, INITIALIZE_VAULT_VAULT_AUTHORITY, authority.mint, INITIALIZE_VAULT_MINT));
    TRY(check_associated(context, INITIALIZE_VAULT_TOKEN_ACCOUNT, info->key, mint));

    Slice signer = {seeds, COUNT(seeds)};
    TRY(create_pda(context, INITIALIZE_VAULT_PAYER, INITIALIZE_VAULT_VAULT, sizeof(CollateralVault), &signer));
    TRY(create_associated(context, INITIALIZE_VAULT_PAYER, INITIALIZE_VAULT_TOKEN_ACCOUNT, INITIALIZE_VAULT_VAULT,
                          INITIALIZE_VAULT_MINT)); /* refuses one that is there with another owner or mint */

    CollateralVault *vault = (CollateralVault *)info->data; /* all else is zero: the account is new */
    vault->discriminator = ACCOUNT_COLLATERAL_VAULT;
    vault->owner = *owner;
    vault->token_account = *context->accounts[INITIALIZE_VAULT_TOKEN_ACCOUNT].key;
    vault->created_at = unix_timestamp();
    vault->bump = bump;

    VaultInitialized event = {EVENT_VAULT_INITIALIZED, *owner, *info->key, vault->created_at};
    EMIT(event);
    return 0;
}

/* -- instructions: the owner's ------------------------------------------------------------------------------------ */

NOINLINE u64 deposit(Context *context) {
    LOG("Instruction: Deposit");
    const U64Argument *amount;
    TAKE(context, DEPOSIT, amount);
    CollateralVault *vault;
    VaultAuthority authority;
    const Pubkey *depositor = context->accounts[DEPOSIT_DEPOSITOR].key;
    TRY(load_vault(context, DEPOSIT_VAULT, &vault));
    TRY(load_authority(context, DEPOSIT_VAULT_AUTHORITY, &authority));
    TRY(check_vault_tokens(context, DEPOSIT_VAULT, DEPOSIT_TOKEN_ACCOUNT, authority.mint));
    TRY(check_token_account(context, DEPOSIT_DEPOSITOR_TOKEN_ACCOUNT, authority.mint, depositor));
    /* A transfer to itself moves nothing, and would be credited. Only the vault's PDA could sign it; still. */
    if (keys_equal(context->accounts[DEPOSIT_DEPOSITOR_TOKEN_ACCOUNT].key, &vault->token_account))
        return fail_account(context, DEPOSIT_DEPOSITOR_TOKEN_ACCOUNT, ERROR_SAME_VAULT);

    if (*authority.paused) return fail(ERROR_PAUSED);
    if (amount->value == 0) return fail(ERROR_INVALID_AMOUNT);
    TRY(credit(vault, amount->value));
    ADD(vault->total_deposited, amount->value);
    TokenTransfer transfer = {DEPOSIT_DEPOSITOR_TOKEN_ACCOUNT, DEPOSIT_TOKEN_ACCOUNT, DEPOSIT_DEPOSITOR, amount->value};
    TRY(transfer_tokens(context, &transfer, NULL));
    emit_balance(EVENT_DEPOSIT_EVENT, context->accounts[DEPOSIT_VAULT].key, vault, amount->value, vault->total_balance);
    return 0;
}

NOINLINE u64 withdraw(Context *context) {
    LOG("Instruction: Withdraw");
    const U64Argument *amount;
    TAKE(context, WITHDRAW, amount);
    CollateralVault *vault;
    VaultAuthority authority;
    TRY(load_owned_vault(context, WITHDRAW_VAULT, WITHDRAW_OWNER, &vault));
    TRY(load_authority(context, WITHDRAW_VAULT_AUTHORITY, &authority));
    TRY(check_vault_tokens(context, WITHDRAW_VAULT, WITHDRAW_TOKEN_ACCOUNT, authority.mint));
    TRY(check_token_account(context, WITHDRAW_OWNER_TOKEN_ACCOUNT, authority.mint, &vault->owner));

    if (*authority.paused) return fail(ERROR_PAUSED);
    if (authority.withdraw_min_delay > 0) return fail(ERROR_TIMELOCK_REQUIRED);
    if (amount->value == 0) return fail(ERROR_INVALID_AMOUNT);
    TRY(lock(vault, amount->value));
    TRY(debit_locked(vault, amount->value));
    TokenTransfer transfer = {WITHDRAW_TOKEN_ACCOUNT, WITHDRAW_OWNER_TOKEN_ACCOUNT, WITHDRAW_VAULT, amount->value};
    return finish_withdraw(context, vault, &transfer);
}

NOINLINE u64 request_withdraw(Context *context) {
    LOG("Instruction: RequestWithdraw");
    const U64Argument *amount;
    TAKE(context, REQUEST_WITHDRAW, amount);
    CollateralVault *vault;
    VaultAuthority authority;
    const AccountInfo *info = &context->accounts[REQUEST_WITHDRAW_WITHDRAW_REQUEST];
    const Pubkey *vault_key = context->accounts[REQUEST_WITHDRAW_VAULT].key;
    TRY(load_owned_vault(context, REQUEST_WITHDRAW_VAULT, REQUEST_WITHDRAW_OWNER, &vault));
    u64 id = vault->next_request;
    u8 bump;
    Slice seeds[4] = {{REQUEST_SEED, sizeof REQUEST_SEED}, {vault_key, sizeof(Pubkey)}, {&id, sizeof id}};
    TRY(find_pda(context, REQUEST_WITHDRAW_WITHDRAW_REQUEST, seeds, 3, &bump));
    TRY(load_authority(context, REQUEST_WITHDRAW_VAULT_AUTHORITY, &authority));

    if (*authority.paused) return fail(ERROR_PAUSED);
    if (amount->value == 0) return fail(ERROR_INVALID_AMOUNT);
    TRY(lock(vault, amount->value));
    i64 unlock_at;
    if (__builtin_add_overflow(unix_timestamp(), authority.withdraw_min_delay, &unlock_at)) return fail(ERROR_OVERFLOW);
    ADD(vault->next_request, 1);
    Slice signer = {seeds, COUNT(seeds)};
    TRY(create_pda(context, REQUEST_WITHDRAW_OWNER, REQUEST_WITHDRAW_WITHDRAW_REQUEST, sizeof(WithdrawRequest),
                   &signer));
    WithdrawRequest request = {ACCOUNT_WITHDRAW_REQUEST, *vault_key, vault->owner, id, amount->value, unlock_at, bump};
    *(WithdrawRequest *)info->data = request;

    RequestEvent event = {EVENT_WITHDRAW_REQUESTED, vault->owner, *vault_key, id, amount->value, unlock_at};
    EMIT(event);
    return 0;
}

/* Not stopped by a pause: it only gives the owner back what was available before. */
NOINLINE u64 cancel_withdraw(Context *context) {
    LOG("Instruction: CancelWithdraw");
    const U64Argument *id;
    TAKE(context, CANCEL_WITHDRAW, id);
    CollateralVault *vault;
    WithdrawRequest *request;
    TRY(load_owned_vault(context, CANCEL_WITHDRAW_VAULT, CANCEL_WITHDRAW_OWNER, &vault));
    TRY(load_request(context, CANCEL_WITHDRAW_WITHDRAW_REQUEST, CANCEL_WITHDRAW_VAULT, id, &request));

    TRY(unlock(vault, request->amount));
    RequestEvent event = {EVENT_WITHDRAW_CANCELLED, vault->owner,    *context->accounts[CANCEL_WITHDRAW_VAULT].key,
                          request->id,              request->amount, unix_timestamp()};
    if (!close_account(&context->accounts[CANCEL_WITHDRAW_WITHDRAW_REQUEST], &context->accounts[CANCEL_WITHDRAW_OWNER]))
        return fail(ERROR_OVERFLOW);
    EMIT(event);
    return 0;
}

/*
 * By anybody, hence only to where the owner expects it: the owner's associated token account. Its `owner` field is
 * checked as well as its address, since a token account can be given away and keeps its address.
 */
NOINLINE u64 execute_withdraw(Context *context) {
    LOG("Instruction: ExecuteWithdraw");
    const U64Argument *id;
    TAKE(context, EXECUTE_WITHDRAW, id);
    CollateralVault *vault;
    VaultAuthority authority;
    WithdrawRequest *request;
    TRY(load_owned_vault(context, EXECUTE_WITHDRAW_VAULT, EXECUTE_WITHDRAW_OWNER, &vault));
    TRY(load_request(context, EXECUTE_WITHDRAW_WITHDRAW_REQUEST, EXECUTE_WITHDRAW_VAULT, id, &request));
    TRY(load_authority(context, EXECUTE_WITHDRAW_VAULT_AUTHORITY, &authority));
    TRY(check_vault_tokens(context, EXECUTE_WITHDRAW_VAULT, EXECUTE_WITHDRAW_TOKEN_ACCOUNT, authority.mint));
    TRY(check_associated(context, EXECUTE_WITHDRAW_OWNER_TOKEN_ACCOUNT, &vault->owner, authority.mint));
    TRY(check_token_account(context, EXECUTE_WITHDRAW_OWNER_TOKEN_ACCOUNT, authority.mint, &vault->owner));

    if (*authority.paused) return fail(ERROR_PAUSED);
    if (unix_timestamp() < request->unlock_at) return fail(ERROR_TIMELOCK_ACTIVE);
    TRY(debit_locked(vault, request->amount));
    TokenTransfer transfer = {EXECUTE_WITHDRAW_TOKEN_ACCOUNT, EXECUTE_WITHDRAW_OWNER_TOKEN_ACCOUNT,
                              EXECUTE_WITHDRAW_VAULT, request->amount};
    TRY(finish_withdraw(context, vault, &transfer));
    if (!close_account(&context->accounts[EXECUTE_WITHDRAW_WITHDRAW_REQUEST],
                       &context->accounts[EXECUTE_WITHDRAW_OWNER]))
        return fail(ERROR_OVERFLOW);
    return 0;
}

/* -- instructions: authorised programs' --------------------------------------------------------------------------- */

NOINLINE u64 lock_collateral(Context *context) {
    LOG("Instruction: LockCollateral");
    const U64Argument *amount;
    TAKE(context, LOCK_COLLATERAL, amount);
    VaultAuthority authority;
    CollateralVault *vault;
    TRY(load_caller(context, &authority));
    TRY(load_vault(context, LOCK_COLLATERAL_VAULT, &vault));

    if (*authority.paused) return fail(ERROR_PAUSED);
    if (amount->value == 0) return fail(ERROR_INVALID_AMOUNT);
    TRY(lock(vault, amount->value));
    emit_balance(EVENT_LOCK_EVENT, context->accounts[LOCK_COLLATERAL_VAULT].key, vault, amount->value,
                 vault->locked_balance);
    return 0;
}

/* Unlocking and transferring go on while paused: positions can be closed and liquidated then, but not opened. */
NOINLINE u64 unlock_collateral(Context *context) {
    LOG("Instruction: UnlockCollateral");
    const U64Argument *amount;
    TAKE(context, UNLOCK_COLLATERAL, amount);
    VaultAuthority authority;
    CollateralVault *vault;
    TRY(load_caller(context, &authority));
    TRY(load_vault(context, UNLOCK_COLLATERAL_VAULT, &vault));

    if (amount->value == 0) return fail(ERROR_INVALID_AMOUNT);
    TRY(unlock(vault, amount->value));
    emit_balance(EVENT_UNLOCK_EVENT, context->accounts[UNLOCK_COLLATERAL_VAULT].key, vault, amount->value,
                 vault->locked_balance);
    return 0;
}

NOINLINE u64 transfer_collateral(Context *context) {
    LOG("Instruction: TransferCollateral");
    const U64Argument *amount;
    TAKE(context, TRANSFER_COLLATERAL, amount);
    VaultAuthority authority;
    CollateralVault *from, *to;
    TRY(load_caller(context, &authority));
    TRY(load_vault(context, TRANSFER_COLLATERAL_FROM_VAULT, &from));
    TRY(load_vault(context, TRANSFER_COLLATERAL_TO_VAULT, &to));
    const Pubkey *from_key = context->accounts[TRANSFER_COLLATERAL_FROM_VAULT].key;
    const Pubkey *to_key = context->accounts[TRANSFER_COLLATERAL_TO_VAULT].key;
    if (keys_equal(from_key, to_key)) return fail_account(context, TRANSFER_COLLATERAL_TO_VAULT, ERROR_SAME_VAULT);
    TRY(check_vault_tokens(context, TRANSFER_COLLATERAL_FROM_VAULT, TRANSFER_COLLATERAL_FROM_TOKEN_ACCOUNT,
                           authority.mint));
    TRY(check_vault_tokens(context, TRANSFER_COLLATERAL_TO_VAULT, TRANSFER_COLLATERAL_TO_TOKEN_ACCOUNT,
                           authority.mint));

    if (amount->value == 0) return fail(ERROR_INVALID_AMOUNT);
    TRY(debit_locked(from, amount->value));
    TRY(credit(to, amount->value));
    TokenTransfer transfer = {TRANSFER_COLLATERAL_FROM_TOKEN_ACCOUNT, TRANSFER_COLLATERAL_TO_TOKEN_ACCOUNT,
                              TRANSFER_COLLATERAL_FROM_VAULT, amount->value};
    TRY(pay_out(context, from, &transfer));

    TransferEvent event = {EVENT_TRANSFER_EVENT, from->owner,   to->owner,       *from_key,
                           *to_key,              amount->value, unix_timestamp()};
    EMIT(event);
    return 0;
}

u64 entrypoint(u8 *input) {
    AccountInfo accounts[ACCOUNTS_MAX];
    Context context;
    read_input(input, accounts, ACCOUNTS_MAX, &context);
    if (context.data_len < 8) return fail(ERROR_INSTRUCTION_MISSING);
    switch (load_u64(context.data)) {
        case INSTRUCTION_INITIALIZE_VAULT_AUTHORITY: return initialize_vault_authority(&context);
        case INSTRUCTION_SET_PAUSED: return set_paused(&context);
        case INSTRUCTION_INITIALIZE_VAULT: return initialize_vault(&context);
        case INSTRUCTION_DEPOSIT: return deposit(&context);
        case INSTRUCTION_WITHDRAW: return withdraw(&context);
        case INSTRUCTION_REQUEST_WITHDRAW: return request_withdraw(&context);
        case INSTRUCTION_CANCEL_WITHDRAW: return cancel_withdraw(&context);
        case INSTRUCTION_EXECUTE_WITHDRAW: return execute_withdraw(&context);
        case INSTRUCTION_LOCK_COLLATERAL: return lock_collateral(&context);
        case INSTRUCTION_UNLOCK_COLLATERAL: return unlock_collateral(&context);
        case INSTRUCTION_TRANSFER_COLLATERAL: return transfer_collateral(&context);
        default: return fail(ERROR_INSTRUCTION_FALLBACK_NOT_FOUND);
    }
}
