/*
 * Anchor's conventions in C: the entrypoint's input, account checks, error codes with their log lines, events.
 *
 * A client cannot tell a program written with this from one written in Rust: codes, names, messages and log formats are
 * those of Anchor 0.30. One difference: an error that no account caused says "AnchorError occurred", Anchor's form
 * without a source position, because a position would change the binary with every edited comment.
 *
 * A program is one C file that includes this after build.py has written `idl.h` from its IDL: discriminators, error
 * codes and texts, and the account list of each instruction. Checks return 0 or the code to leave with; TRY passes a
 * failure on. Rent, account creation and closing are in system.h.
 */
#pragma once
#include "idl.h"
#include "sbf.h"

#define TRY(check)                      \
    do {                                \
        u64 failure_ = (check);         \
        if (failure_) return failure_;  \
    } while (0)

/* -- errors ------------------------------------------------------------------------------------------------------- */

#define ANCHOR_ERRORS(X)                                                                                              \
    X(INSTRUCTION_MISSING, 100, "InstructionMissing", "8 byte instruction identifier not provided")                   \
    X(INSTRUCTION_FALLBACK_NOT_FOUND, 101, "InstructionFallbackNotFound", "Fallback functions are not supported")     \
    X(INSTRUCTION_DID_NOT_DESERIALIZE, 102, "InstructionDidNotDeserialize",                                           \
      "The program could not deserialize the given instruction")                                                      \
    X(CONSTRAINT_MUT, 2000, "ConstraintMut", "A mut constraint was violated")                                         \
    X(CONSTRAINT_HAS_ONE, 2001, "ConstraintHasOne", "A has one constraint was violated")                              \
    X(CONSTRAINT_SIGNER, 2002, "ConstraintSigner", "A signer constraint was violated")                                \
    X(CONSTRAINT_SEEDS, 2006, "ConstraintSeeds", "A seeds constraint was violated")                                   \
    X(CONSTRAINT_ASSOCIATED, 2009, "ConstraintAssociated", "An associated constraint was violated")                   \
    X(CONSTRAINT_ADDRESS, 2012, "ConstraintAddress", "An address constraint was violated")                            \
    X(CONSTRAINT_TOKEN_MINT, 2014, "ConstraintTokenMint", "A token mint constraint was violated")                     \
    X(CONSTRAINT_TOKEN_OWNER, 2015, "ConstraintTokenOwner", "A token owner constraint was violated")                  \
    X(CONSTRAINT_MINT_DECIMALS, 2018, "ConstraintMintDecimals", "A mint decimals constraint was violated")            \
    X(ACCOUNT_DISCRIMINATOR_NOT_FOUND, 3001, "AccountDiscriminatorNotFound",                                          \
      "No 8 byte discriminator was found on the account")                                                             \
    X(ACCOUNT_DISCRIMINATOR_MISMATCH, 3002, "AccountDiscriminatorMismatch",                                           \
      "8 byte discriminator did not match what was expected")                                                         \
    X(ACCOUNT_DID_NOT_DESERIALIZE, 3003, "AccountDidNotDeserialize", "Failed to deserialize the account")             \
    X(ACCOUNT_DID_NOT_SERIALIZE, 3004, "AccountDidNotSerialize", "Failed to serialize the account")                   \
    X(ACCOUNT_NOT_ENOUGH_KEYS, 3005, "AccountNotEnoughKeys", "Not enough account keys given to the instruction")      \
    X(ACCOUNT_OWNED_BY_WRONG_PROGRAM, 3007, "AccountOwnedByWrongProgram",                                             \
      "The given account is owned by a different program than expected")                                              \
    X(INVALID_PROGRAM_ID, 3008, "InvalidProgramId", "Program ID was not as expected")                                 \
    X(ACCOUNT_NOT_SIGNER, 3010, "AccountNotSigner", "The given account did not sign")                                 \
    X(ACCOUNT_NOT_INITIALIZED, 3012, "AccountNotInitialized",                                                         \
      "The program expected this account to be already initialized")

#define ERROR_CODE(symbol, code, name, message) ERROR_##symbol = code,
#define ERROR_TEXT(symbol, code, name, message) {code, name, message},
enum { ANCHOR_ERRORS(ERROR_CODE) PROGRAM_ERRORS(ERROR_CODE) };
static const ErrorText ERRORS[] = {ANCHOR_ERRORS(ERROR_TEXT) PROGRAM_ERRORS(ERROR_TEXT)};

typedef struct {
    char text[320]; /* the longest: 31 + account + 14 + name + 16 + 4 + 17 + message; what does not fit is cut */
    u64 len;
} LogLine;

NOINLINE void append(LogLine *line, const char *text) {
    for (; *text && line->len < sizeof line->text; text++) line->text[line->len++] = *text;
}

NOINLINE void append_u64(LogLine *line, u64 value) {
    char digits[21];
    u64 at = sizeof digits - 1;
    digits[at] = 0;
    do digits[--at] = (char)('0' + value % 10);
    while (value /= 10);
    append(line, digits + at);
}

/* Log the error as Anchor does, `account` NULL where none caused it, and return its code. */
NOINLINE u64 log_error(u64 code, const char *account) {
    const ErrorText *error = ERRORS;
    for (u64 i = 0; i < COUNT(ERRORS); i++)
        if (ERRORS[i].code == code) error = &ERRORS[i];
    LogLine line;
    line.len = 0;
    if (account) {
        append(&line, "AnchorError caused by account: ");
        append(&line, account);
    } else {
        append(&line, "AnchorError occurred");
    }
    append(&line, ". Error Code: ");
    append(&line, error->name);
    append(&line, ". Error Number: ");
    append_u64(&line, code);
    append(&line, ". Error Message: ");
    append(&line, error->message);
    append(&line, ".");
    sol_log_(line.text, line.len);
    return code;
}

INLINE u64 fail(u64 code) { return log_error(code, NULL); }

INLINE u64 fail_account(const Context *context, u64 account, u64 code) {
    return log_error(code, context->specs[account].name);
}

/* As fail_account, with the two addresses that should have been equal: what was given, what was expected. */
NOINLINE u64 fail_keys(const Context *context, u64 account, u64 code, const Pubkey *left, const Pubkey *right) {
    log_error(code, context->specs[account].name);
    LOG("Left:");
    sol_log_pubkey(left);
    LOG("Right:");
    sol_log_pubkey(right);
    return code;
}

/* -- input -------------------------------------------------------------------------------------------------------- */

/* Bytes the runtime reserves after an account's data, so that a program may grow it. */
#define DATA_GROWTH_MAX 10240

/*
 * Read the runtime's serialized input. An account given twice is one account: both entries point at the same memory.
 * Accounts after `capacity` are passed over, as Anchor ignores accounts after those it knows.
 */
INLINE void read_input(u8 *at, AccountInfo *accounts, u64 capacity, Context *context) {
    u64 count = load_u64(at);
    at += 8;
    for (u64 i = 0; i < count; i++) {
        AccountInfo *account = &accounts[i];
        if (*at != 0xff) { /* the index of the first entry for the same account, and seven bytes of padding */
            if (i < capacity) *account = accounts[*at];
            at += 8;
            continue;
        }
        u64 len = load_u64(at + 80);
        u8 *end = (u8 *)(((u64)(at + 88 + len + DATA_GROWTH_MAX) + 7) & ~7ULL);
        if (i < capacity) {
            account->is_signer = at[1];
            account->is_writable = at[2];
            account->is_executable = at[3];
            account->key = (Pubkey *)(at + 8);
            account->owner = (Pubkey *)(at + 40);
            account->lamports = (u64 *)(at + 72);
            account->input_len = len;
            account->data = at + 88;
            account->rent_epoch = load_u64(end);
        }
        at = end + 8;
    }
    context->accounts = accounts;
    context->account_count = count < capacity ? count : capacity;
    context->data_len = load_u64(at);
    context->data = at + 8;
    context->program_id = (const Pubkey *)(at + 8 + context->data_len);
    context->specs = NULL;
}

/* The arguments after the discriminator, or NULL where fewer bytes came. More may come: Anchor ignores them. */
#define ARGUMENTS(context, Type) \
    ((context)->data_len < 8 + sizeof(Type) ? (const Type *)NULL : (const Type *)((context)->data + 8))

/* -- accounts ----------------------------------------------------------------------------------------------------- */

static const Pubkey SYSTEM_PROGRAM __attribute__((unused)) = {{0}};

/* All accounts are there, signed, are the program the IDL names, and are writable; in Anchor's order of checking. */
NOINLINE u64 check_accounts(Context *context, const AccountSpec *specs, u64 count) {
    context->specs = specs;
    for (u64 i = 0; i < count; i++) {
        if (i >= context->account_count) return fail_account(context, i, ERROR_ACCOUNT_NOT_ENOUGH_KEYS);
        const AccountInfo *account = &context->accounts[i];
        if ((specs[i].flags & SIGNER) && !account->is_signer) return fail_account(context, i, ERROR_ACCOUNT_NOT_SIGNER);
        if (specs[i].address && !keys_equal(account->key, specs[i].address))
            return fail_keys(context, i, ERROR_INVALID_PROGRAM_ID, account->key, specs[i].address);
    }
    for (u64 i = 0; i < count; i++)
        if ((specs[i].flags & WRITABLE) && !context->accounts[i].is_writable)
            return fail_account(context, i, ERROR_CONSTRAINT_MUT);
    return 0;
}

/* Adopt the account list that the IDL gives this instruction, and check it. */
#define CHECK_ACCOUNTS(context, INSTRUCTION)                                            \
    do {                                                                                \
        static const AccountSpec specs_[] = INSTRUCTION##_ACCOUNTS;                     \
        TRY(check_accounts(context, specs_, COUNT(specs_)));                            \
    } while (0)

/* The account exists, is this program's, and begins with the discriminator. */
NOINLINE u64 check_type(const Context *context, u64 account, u64 discriminator) {
    const AccountInfo *info = &context->accounts[account];
    if (*info->lamports == 0 && keys_equal(info->owner, &SYSTEM_PROGRAM))
        return fail_account(context, account, ERROR_ACCOUNT_NOT_INITIALIZED);
    if (!keys_equal(info->owner, context->program_id))
        return fail_keys(context, account, ERROR_ACCOUNT_OWNED_BY_WRONG_PROGRAM, info->owner, context->program_id);
    if (data_len(info) < 8) return fail_account(context, account, ERROR_ACCOUNT_DISCRIMINATOR_NOT_FOUND);
    if (load_u64(info->data) != discriminator)
        return fail_account(context, account, ERROR_ACCOUNT_DISCRIMINATOR_MISMATCH);
    return 0;
}

/* The account's address is the one expected. */
INLINE u64 check_address(const Context *context, u64 account, const Pubkey *expected) {
    const Pubkey *key = context->accounts[account].key;
    return keys_equal(key, expected) ? 0 : fail_keys(context, account, ERROR_CONSTRAINT_ADDRESS, key, expected);
}

/* The address stored in account `holder` names account `target`. */
INLINE u64 check_has_one(const Context *context, u64 holder, const Pubkey *stored, u64 target) {
    const Pubkey *key = context->accounts[target].key;
    return keys_equal(stored, key) ? 0 : fail_keys(context, holder, ERROR_CONSTRAINT_HAS_ONE, stored, key);
}

/* The account's address is the PDA of `seeds`, the last of which is the bump that was stored when it was created. */
NOINLINE u64 check_pda(const Context *context, u64 account, const Slice *seeds, u64 count) {
    const Pubkey *key = context->accounts[account].key;
    Pubkey address;
    if (sol_create_program_address(seeds, count, context->program_id, &address))
        return fail_account(context, account, ERROR_CONSTRAINT_SEEDS);
    return keys_equal(key, &address) ? 0 : fail_keys(context, account, ERROR_CONSTRAINT_SEEDS, key, &address);
}

/*
 * The account's address is the canonical PDA of `seeds`; its bump is written to `bump`. `seeds` has room for one more,
 * which becomes the bump, so that the same array signs for the address.
 */
NOINLINE u64 find_pda(const Context *context, u64 account, Slice *seeds, u64 count, u8 *bump) {
    const Pubkey *key = context->accounts[account].key;
    Pubkey address;
    if (sol_try_find_program_address(seeds, count, context->program_id, &address, bump))
        return fail_account(context, account, ERROR_CONSTRAINT_SEEDS);
    seeds[count] = (Slice){bump, 1};
    return keys_equal(key, &address) ? 0 : fail_keys(context, account, ERROR_CONSTRAINT_SEEDS, key, &address);
}

/* -- calls -------------------------------------------------------------------------------------------------------- */

/* Call another program with this instruction's accounts; `seeds` (NULL: none) lists what signs for one PDA of ours. */
INLINE u64 invoke(const Context *context, const Instruction *instruction, const Slice *seeds) {
    return sol_invoke_signed_c(instruction, context->accounts, context->account_count, seeds, seeds ? 1 : 0);
}

/* -- events ------------------------------------------------------------------------------------------------------- */

/* emit!: one `Program data:` line. `event` is a PACKED struct that begins with its discriminator. */
#define EMIT(event)                                 \
    do {                                            \
        Slice payload_ = {&(event), sizeof(event)}; \
        sol_log_data(&payload_, 1);                 \
    } while (0)
