/*
 * ephemeral_vault: session vaults for gasless trading.
 *
 * A parent wallet opens a vault for an ephemeral wallet, approves that wallet as its delegate, and deposits lamports
 * for fees. Until the session expires or is revoked the ephemeral wallet books what its trades cost. After expiry
 * anybody may close the vault: lamports go home to the parent, a small reward to whoever did it.
 *
 * Anchor's order holds in every instruction: arguments, accounts, then state. A vault's address lives again after a
 * cleanup, and the delegation outlives the vault; so a delegation counts only if approved in the vault's own session.
 */
#include "anchor.h"
#include "borsh.h"
#include "system.h"

#define CLEANUP_REWARD_LAMPORTS_MAX 10000
#define ACCOUNTS_MAX 16 /* what is kept of an instruction's accounts; those after it are of no use here */

static const char VAULT_SEED[] = {'v', 'a', 'u', 'l', 't'};
static const char DELEGATION_SEED[] = {'d', 'e', 'l', 'e', 'g', 'a', 't', 'i', 'o', 'n'};

/* -- layouts: accounts, arguments, events ------------------------------------------------------------------------- */

typedef struct PACKED {
    u64 discriminator;
    Pubkey parent_wallet;
    Pubkey ephemeral_wallet;
    i64 session_start;
    i64 session_expiry;
    u8 is_active;
    u64 total_deposited;
    u64 total_spent;
    u64 max_deposit;
    u8 bump;
} EphemeralVault;
_Static_assert(sizeof(EphemeralVault) == SIZE_EPHEMERAL_VAULT, "the IDL's size");

/* Decoded: `revoked_at` takes 1 or 9 bytes in the account, so that `bump` moves. */
typedef struct {
    Pubkey vault;
    Pubkey delegate;
    i64 approved_at;
    bool is_revoked;
    i64 revoked_at;
    u8 bump;
} VaultDelegation;

typedef struct PACKED {
    i64 session_duration;
    u64 max_deposit;
    Pubkey ephemeral_wallet;
} CreateVaultArguments;

typedef struct PACKED {
    Pubkey delegate;
} ApproveDelegateArguments;

typedef struct PACKED {
    u64 trade_fee_estimate;
} AutoDepositForTradeArguments;

typedef struct PACKED {
    u64 fee_paid;
} ExecuteTradeArguments;

typedef struct PACKED {
    u64 discriminator;
    Pubkey parent, vault, ephemeral_wallet;
    u64 max_deposit;
    i64 session_start, session_expiry;
} VaultCreated;
_Static_assert(sizeof(VaultCreated) == SIZE_VAULT_CREATED, "the IDL's size");

typedef struct PACKED {
    u64 discriminator;
    Pubkey vault, delegate;
    i64 approved_at;
} DelegateApproved;
_Static_assert(sizeof(DelegateApproved) == SIZE_DELEGATE_APPROVED, "the IDL's size");

typedef struct PACKED {
    u64 discriminator;
    Pubkey vault;
    u64 amount, total_deposited;
} AutoDeposit;
_Static_assert(sizeof(AutoDeposit) == SIZE_AUTO_DEPOSIT, "the IDL's size");

typedef struct PACKED {
    u64 discriminator;
    Pubkey vault, delegate;
    u64 fee_paid, total_spent;
} TradeExecuted;
_Static_assert(sizeof(TradeExecuted) == SIZE_TRADE_EXECUTED, "the IDL's size");

typedef struct PACKED {
    u64 discriminator;
    Pubkey vault, parent;
    i64 revoked_at;
} AccessRevoked;
_Static_assert(sizeof(AccessRevoked) == SIZE_ACCESS_REVOKED, "the IDL's size");

typedef struct PACKED {
    u64 discriminator;
    Pubkey vault, parent, cleaner;
    u64 reward;
} VaultCleaned;
_Static_assert(sizeof(VaultCleaned) == SIZE_VAULT_CLEANED, "the IDL's size");

/* -- accounts ----------------------------------------------------------------------------------------------------- */

/* The vault in `account`: ours, of that type, at the address its own fields name. */
NOINLINE u64 load_vault(const Context *context, u64 account, EphemeralVault **vault) {
    TRY(check_type(context, account, ACCOUNT_EPHEMERAL_VAULT));
    const AccountInfo *info = &context->accounts[account];
    EphemeralVault *state = (EphemeralVault *)info->data;
    if (data_len(info) < sizeof *state || state->is_active > 1)
        return fail_account(context, account, ERROR_ACCOUNT_DID_NOT_DESERIALIZE);
    Slice seeds[] = {{VAULT_SEED, sizeof VAULT_SEED},
                     {&state->parent_wallet, sizeof(Pubkey)},
                     {&state->ephemeral_wallet, sizeof(Pubkey)},
                     {&state->bump, 1}};
    TRY(check_pda(context, account, seeds, COUNT(seeds)));
    *vault = state;
    return 0;
}

NOINLINE u64 read_delegation(const Context *context, u64 account, VaultDelegation *delegation) {
    TRY(check_type(context, account, ACCOUNT_VAULT_DELEGATION));
    const AccountInfo *info = &context->accounts[account];
    BorshReader reader = {info->data + 8, info->data + data_len(info), false};
    read_key(&reader, &delegation->vault);
    read_key(&reader, &delegation->delegate);
    delegation->approved_at = (i64)read_u64(&reader);
    delegation->is_revoked = read_bool(&reader);
    delegation->revoked_at = delegation->is_revoked ? (i64)read_u64(&reader) : 0;
    delegation->bump = read_u8(&reader);
    return reader.failed ? fail_account(context, account, ERROR_ACCOUNT_DID_NOT_DESERIALIZE) : 0;
}

/* The bytes after a shorter form are left as they are: borsh does not read them, and Anchor leaves them too. */
NOINLINE u64 write_delegation(const Context *context, u64 account, const VaultDelegation *delegation) {
    const AccountInfo *info = &context->accounts[account];
    BorshWriter writer = {info->data, info->data + data_len(info), false};
    write_u64(&writer, ACCOUNT_VAULT_DELEGATION);
    write_key(&writer, &delegation->vault);
    write_key(&writer, &delegation->delegate);
    write_u64(&writer, (u64)delegation->approved_at);
    write_u8(&writer, delegation->is_revoked);
    if (delegation->is_revoked) write_u64(&writer, (u64)delegation->revoked_at);
    write_u8(&writer, delegation->bump);
    return writer.failed ? fail_account(context, account, ERROR_ACCOUNT_DID_NOT_SERIALIZE) : 0;
}

/* The delegation of `vault`, at its own address. */
NOINLINE u64 load_delegation(const Context *context, u64 account, u64 vault, VaultDelegation *delegation) {
    TRY(read_delegation(context, account, delegation));
    const Pubkey *vault_key = context->accounts[vault].key;
    Slice seeds[] = {{DELEGATION_SEED, sizeof DELEGATION_SEED}, {vault_key, sizeof(Pubkey)}, {&delegation->bump, 1}};
    TRY(check_pda(context, account, seeds, COUNT(seeds)));
    if (!keys_equal(&delegation->vault, vault_key))
        return fail_account(context, account, ERROR_INVALID_DELEGATION_ACCOUNT);
    return 0;
}

/* What a deposit and a trade ask of the session: neither revoked nor over. */
NOINLINE u64 check_session(const EphemeralVault *vault) {
    if (!vault->is_active) return fail(ERROR_VAULT_INACTIVE);
    if (unix_timestamp() >= vault->session_expiry) return fail(ERROR_SESSION_EXPIRED);
    return 0;
}

/* -- instructions ------------------------------------------------------------------------------------------------- */

NOINLINE u64 create_vault(Context *context) {
    LOG("Instruction: CreateVault");
    const CreateVaultArguments *arguments = ARGUMENTS(context, CreateVaultArguments);
    if (!arguments) return fail(ERROR_INSTRUCTION_DID_NOT_DESERIALIZE);
    CHECK_ACCOUNTS(context, CREATE_VAULT);
    const Pubkey *parent = context->accounts[CREATE_VAULT_PARENT].key;
    const AccountInfo *info = &context->accounts[CREATE_VAULT_VAULT];
    TRY(check_address(context, CREATE_VAULT_EPHEMERAL_WALLET, &arguments->ephemeral_wallet));

    u8 bump;
    Slice seeds[4] = {{VAULT_SEED, sizeof VAULT_SEED},
                      {parent, sizeof(Pubkey)},
                      {&arguments->ephemeral_wallet, sizeof(Pubkey)}};
    TRY(find_pda(context, CREATE_VAULT_VAULT, seeds, 3, &bump));

    i64 session_start = unix_timestamp(), session_expiry;
    if (__builtin_add_overflow(session_start, arguments->session_duration, &session_expiry))
        return fail(ERROR_MATH_OVERFLOW);
    Slice signer = {seeds, COUNT(seeds)};
    TRY(create_pda(context, CREATE_VAULT_PARENT, CREATE_VAULT_VAULT, sizeof(EphemeralVault), &signer));

    EphemeralVault *vault = (EphemeralVault *)info->data;
    vault->discriminator = ACCOUNT_EPHEMERAL_VAULT;
    vault->parent_wallet = *parent;
    vault->ephemeral_wallet = arguments->ephemeral_wallet;
    vault->session_start = session_start;
    vault->session_expiry = session_expiry;
    vault->is_active = true;
    vault->total_deposited = 0;
    vault->total_spent = 0;
    vault->max_deposit = arguments->max_deposit;
    vault->bump = bump;

    VaultCreated event = {EVENT_VAULT_CREATED,    *parent,       *info->key,    arguments->ephemeral_wallet,
                          arguments->max_deposit, session_start, session_expiry};
    EMIT(event);
    return 0;
}

NOINLINE u64 approve_delegate(Context *context) {
    LOG("Instruction: ApproveDelegate");
    const ApproveDelegateArguments *arguments = ARGUMENTS(context, ApproveDelegateArguments);
    if (!arguments) return fail(ERROR_INSTRUCTION_DID_NOT_DESERIALIZE);
    CHECK_ACCOUNTS(context, APPROVE_DELEGATE);
    EphemeralVault *vault;
    TRY(load_vault(context, APPROVE_DELEGATE_VAULT, &vault));
    TRY(check_address(context, APPROVE_DELEGATE_PARENT, &vault->parent_wallet));

    const Pubkey *vault_key = context->accounts[APPROVE_DELEGATE_VAULT].key;
    VaultDelegation delegation;
    Slice seeds[3] = {{DELEGATION_SEED, sizeof DELEGATION_SEED}, {vault_key, sizeof(Pubkey)}};
    TRY(find_pda(context, APPROVE_DELEGATE_DELEGATION, seeds, 2, &delegation.bump));
    if (!keys_equal(&arguments->delegate, &vault->ephemeral_wallet)) return fail(ERROR_INVALID_DELEGATE);

    /* Lamports alone do not make an account: whoever sends some to the address must not block the approval. */
    if (keys_equal(context->accounts[APPROVE_DELEGATE_DELEGATION].owner, &SYSTEM_PROGRAM)) {
        Slice signer = {seeds, COUNT(seeds)};
        TRY(create_pda(context, APPROVE_DELEGATE_PARENT, APPROVE_DELEGATE_DELEGATION, SIZE_VAULT_DELEGATION, &signer));
    } else {
        TRY(check_type(context, APPROVE_DELEGATE_DELEGATION, ACCOUNT_VAULT_DELEGATION));
    }
    delegation.vault = *vault_key;
    delegation.delegate = arguments->delegate;
    delegation.approved_at = unix_timestamp();
    delegation.is_revoked = false;
    delegation.revoked_at = 0;
    TRY(write_delegation(context, APPROVE_DELEGATE_DELEGATION, &delegation));

    DelegateApproved event = {EVENT_DELEGATE_APPROVED, *vault_key, delegation.delegate, delegation.approved_at};
    EMIT(event);
    return 0;
}

NOINLINE u64 auto_deposit_for_trade(Context *context) {
    LOG("Instruction: AutoDepositForTrade");
    const AutoDepositForTradeArguments *arguments = ARGUMENTS(context, AutoDepositForTradeArguments);
    if (!arguments) return fail(ERROR_INSTRUCTION_DID_NOT_DESERIALIZE);
    CHECK_ACCOUNTS(context, AUTO_DEPOSIT_FOR_TRADE);
    EphemeralVault *vault;
    TRY(load_vault(context, AUTO_DEPOSIT_FOR_TRADE_VAULT, &vault));
    TRY(check_address(context, AUTO_DEPOSIT_FOR_TRADE_PARENT, &vault->parent_wallet));

    TRY(check_session(vault));
    u64 amount = arguments->trade_fee_estimate, total_deposited;
    if (__builtin_add_overflow(vault->total_deposited, amount, &total_deposited)) return fail(ERROR_MATH_OVERFLOW);
    if (total_deposited > vault->max_deposit) return fail(ERROR_OVER_DEPOSIT);
    TRY(transfer_lamports(context, AUTO_DEPOSIT_FOR_TRADE_PARENT, AUTO_DEPOSIT_FOR_TRADE_VAULT, amount));
    vault->total_deposited = total_deposited;

    AutoDeposit event = {EVENT_AUTO_DEPOSIT, *context->accounts[AUTO_DEPOSIT_FOR_TRADE_VAULT].key, amount,
                         total_deposited};
    EMIT(event);
    return 0;
}

NOINLINE u64 execute_trade(Context *context) {
    LOG("Instruction: ExecuteTrade");
    const ExecuteTradeArguments *arguments = ARGUMENTS(context, ExecuteTradeArguments);
    if (!arguments) return fail(ERROR_INSTRUCTION_DID_NOT_DESERIALIZE);
    CHECK_ACCOUNTS(context, EXECUTE_TRADE);
    EphemeralVault *vault;
    VaultDelegation delegation;
    TRY(load_vault(context, EXECUTE_TRADE_VAULT, &vault));
    TRY(load_delegation(context, EXECUTE_TRADE_DELEGATION, EXECUTE_TRADE_VAULT, &delegation));
    TRY(check_has_one(context, EXECUTE_TRADE_VAULT, &vault->parent_wallet, EXECUTE_TRADE_PARENT_WALLET));
    const Pubkey *ephemeral = context->accounts[EXECUTE_TRADE_EPHEMERAL].key;
    if (!keys_equal(ephemeral, &vault->ephemeral_wallet) || !keys_equal(ephemeral, &delegation.delegate))
        return fail_account(context, EXECUTE_TRADE_EPHEMERAL, ERROR_INVALID_DELEGATE);

    TRY(check_session(vault));
    if (delegation.is_revoked) return fail_account(context, EXECUTE_TRADE_DELEGATION, ERROR_DELEGATION_REVOKED);
    if (delegation.approved_at < vault->session_start) /* left from a session that is over */
        return fail_account(context, EXECUTE_TRADE_DELEGATION, ERROR_INVALID_DELEGATION_ACCOUNT);
    u64 total_spent;
    if (__builtin_add_overflow(vault->total_spent, arguments->fee_paid, &total_spent)) return fail(ERROR_MATH_OVERFLOW);
    if (total_spent > vault->total_deposited) return fail(ERROR_INSUFFICIENT_VAULT_BALANCE);
    vault->total_spent = total_spent;

    TradeExecuted event = {EVENT_TRADE_EXECUTED, *context->accounts[EXECUTE_TRADE_VAULT].key, *ephemeral,
                           arguments->fee_paid, total_spent};
    EMIT(event);
    return 0;
}

/* The parent may always revoke, an expired or revoked session too: nothing stands between it and its funds. */
NOINLINE u64 revoke_access(Context *context) {
    LOG("Instruction: RevokeAccess");
    CHECK_ACCOUNTS(context, REVOKE_ACCESS);
    EphemeralVault *vault;
    VaultDelegation delegation;
    TRY(load_vault(context, REVOKE_ACCESS_VAULT, &vault));
    TRY(load_delegation(context, REVOKE_ACCESS_DELEGATION, REVOKE_ACCESS_VAULT, &delegation));
    TRY(check_has_one(context, REVOKE_ACCESS_VAULT, &vault->parent_wallet, REVOKE_ACCESS_PARENT_WALLET));
    TRY(check_address(context, REVOKE_ACCESS_PARENT, &vault->parent_wallet));

    vault->is_active = false;
    delegation.is_revoked = true;
    delegation.revoked_at = unix_timestamp();
    TRY(write_delegation(context, REVOKE_ACCESS_DELEGATION, &delegation));
    AccountInfo *info = &context->accounts[REVOKE_ACCESS_VAULT];
    if (!move_lamports(info, &context->accounts[REVOKE_ACCESS_PARENT], lamports_above_rent(info)))
        return fail(ERROR_MATH_OVERFLOW);

    AccessRevoked event = {EVENT_ACCESS_REVOKED, *info->key, vault->parent_wallet, delegation.revoked_at};
    EMIT(event);
    return 0;
}

/* Anybody may clean, the parent too: then cleaner and parent are one account, and the lamports still add up. */
NOINLINE u64 cleanup_vault(Context *context) {
    LOG("Instruction: CleanupVault");
    CHECK_ACCOUNTS(context, CLEANUP_VAULT);
    EphemeralVault *vault;
    TRY(load_vault(context, CLEANUP_VAULT_VAULT, &vault));
    TRY(check_has_one(context, CLEANUP_VAULT_VAULT, &vault->parent_wallet, CLEANUP_VAULT_PARENT_WALLET));
    TRY(check_address(context, CLEANUP_VAULT_PARENT, &vault->parent_wallet));
    if (unix_timestamp() < vault->session_expiry) return fail(ERROR_SESSION_NOT_EXPIRED);

    AccountInfo *info = &context->accounts[CLEANUP_VAULT_VAULT];
    AccountInfo *parent = &context->accounts[CLEANUP_VAULT_PARENT];
    AccountInfo *cleaner = &context->accounts[CLEANUP_VAULT_CLEANER];
    u64 reward = lamports_above_rent(info);
    if (reward > CLEANUP_REWARD_LAMPORTS_MAX) reward = CLEANUP_REWARD_LAMPORTS_MAX;
    if (!move_lamports(info, cleaner, reward) || !close_account(info, parent)) return fail(ERROR_MATH_OVERFLOW);

    VaultCleaned event = {EVENT_VAULT_CLEANED, *info->key, *parent->key, *cleaner->key, reward};
    EMIT(event);
    return 0;
}

u64 entrypoint(u8 *input) {
    AccountInfo accounts[ACCOUNTS_MAX];
    Context context;
    read_input(input, accounts, ACCOUNTS_MAX, &context);
    if (context.data_len < 8) return fail(ERROR_INSTRUCTION_MISSING);
    switch (load_u64(context.data)) {
        case INSTRUCTION_CREATE_VAULT: return create_vault(&context);
        case INSTRUCTION_APPROVE_DELEGATE: return approve_delegate(&context);
        case INSTRUCTION_AUTO_DEPOSIT_FOR_TRADE: return auto_deposit_for_trade(&context);
        case INSTRUCTION_EXECUTE_TRADE: return execute_trade(&context);
        case INSTRUCTION_REVOKE_ACCESS: return revoke_access(&context);
        case INSTRUCTION_CLEANUP_VAULT: return cleanup_vault(&context);
        default: return fail(ERROR_INSTRUCTION_FALLBACK_NOT_FOUND);
    }
}
