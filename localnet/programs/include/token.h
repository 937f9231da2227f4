/*
 * SPL tokens: mints and token accounts checked, associated token accounts derived and made, tokens transferred.
 *
 * The classic token program only, as a transfer there moves exactly its amount. A program that includes this lists
 * `token_program` and `associated_token_program` with their addresses in its IDL, which is where the two constants used
 * here come from. Amounts are base units.
 */
#pragma once
#include "anchor.h"

/* The programs' instructions, by their u8 tag. */
enum { TOKEN_TRANSFER = 3, ASSOCIATED_TOKEN_CREATE_IDEMPOTENT = 1 };

enum { TOKEN_STATE_INITIALIZED = 1 }; /* 0: not yet; 2: frozen, which a transfer refuses by itself */

typedef struct PACKED {
    u32 has_mint_authority;
    Pubkey mint_authority;
    u64 supply;
    u8 decimals;
    u8 is_initialized;
    u32 has_freeze_authority;
    Pubkey freeze_authority;
} Mint;
_Static_assert(sizeof(Mint) == 82, "the token program's size");

typedef struct PACKED {
    Pubkey mint;
    Pubkey owner;
    u64 amount;
    u32 has_delegate;
    Pubkey delegate;
    u8 state;
    u32 is_native;
    u64 native_reserve;
    u64 delegated_amount;
    u32 has_close_authority;
    Pubkey close_authority;
} TokenAccount;
_Static_assert(sizeof(TokenAccount) == 165, "the token program's size");

/* A transfer by account index; `authority` must sign. */
typedef struct {
    u64 from, to, authority, amount;
} TokenTransfer;

/* The account exists, is the token program's, and has exactly `len` bytes: that tells a mint from a token account. */
NOINLINE u64 check_token_data(const Context *context, u64 account, u64 len) {
    const AccountInfo *info = &context->accounts[account];
    if (*info->lamports == 0 && keys_equal(info->owner, &SYSTEM_PROGRAM))
        return fail_account(context, account, ERROR_ACCOUNT_NOT_INITIALIZED);
    if (!keys_equal(info->owner, &ADDRESS_TOKEN_PROGRAM))
        return fail_keys(context, account, ERROR_ACCOUNT_OWNED_BY_WRONG_PROGRAM, info->owner, &ADDRESS_TOKEN_PROGRAM);
    return data_len(info) == len ? 0 : fail_account(context, account, ERROR_ACCOUNT_DID_NOT_DESERIALIZE);
}

/* The account is a mint in use, with that many decimals. */
NOINLINE u64 check_mint(const Context *context, u64 account, u64 decimals) {
    TRY(check_token_data(context, account, sizeof(Mint)));
    const Mint *mint = (const Mint *)context->accounts[account].data;
    if (mint->is_initialized != 1) return fail_account(context, account, ERROR_ACCOUNT_DID_NOT_DESERIALIZE);
    return mint->decimals == decimals ? 0 : fail_account(context, account, ERROR_CONSTRAINT_MINT_DECIMALS);
}

/* The account is a token account in use, of that mint, and `owner` decides over its tokens. */
NOINLINE u64 check_token_account(const Context *context, u64 account, const Pubkey *mint, const Pubkey *owner) {
    TRY(check_token_data(context, account, sizeof(TokenAccount)));
    const TokenAccount *token = (const TokenAccount *)context->accounts[account].data;
    if (token->state < TOKEN_STATE_INITIALIZED)
        return fail_account(context, account, ERROR_ACCOUNT_DID_NOT_DESERIALIZE);
    if (!keys_equal(&token->owner, owner))
        return fail_keys(context, account, ERROR_CONSTRAINT_TOKEN_OWNER, &token->owner, owner);
    if (!keys_equal(&token->mint, mint))
        return fail_keys(context, account, ERROR_CONSTRAINT_TOKEN_MINT, &token->mint, mint);
    return 0;
}

/* The account's address is that of `wallet`'s associated token account for `mint`. What lies there is not looked at. */
NOINLINE u64 check_associated(const Context *context, u64 account, const Pubkey *wallet, const Pubkey *mint) {
    const Pubkey *key = context->accounts[account].key;
    Pubkey address;
    u8 bump;
    Slice seeds[] = {
        {wallet, sizeof(Pubkey)}, {&ADDRESS_TOKEN_PROGRAM, sizeof(Pubkey)}, {mint, sizeof(Pubkey)}};
    if (sol_try_find_program_address(seeds, COUNT(seeds), &ADDRESS_ASSOCIATED_TOKEN_PROGRAM, &address, &bump))
        return fail_account(context, account, ERROR_CONSTRAINT_ASSOCIATED);
    return keys_equal(key, &address) ? 0 : fail_keys(context, account, ERROR_CONSTRAINT_ASSOCIATED, key, &address);
}

/*
 * Make the associated token account at index `account`, rent paid by `payer`; content with one that is there already,
 * since anybody may make one for anybody. The program called checks address, owner and mint of either. The two programs
 * and the system program must be among the accounts.
 */
NOINLINE u64 create_associated(const Context *context, u64 payer, u64 account, u64 wallet, u64 mint) {
    const AccountInfo *accounts = context->accounts;
    AccountMeta metas[] = {{accounts[payer].key, true, true},    {accounts[account].key, true, false},
                           {accounts[wallet].key, false, false}, {accounts[mint].key, false, false},
                           {&SYSTEM_PROGRAM, false, false},      {&ADDRESS_TOKEN_PROGRAM, false, false}};
    u8 tag = ASSOCIATED_TOKEN_CREATE_IDEMPOTENT;
    Instruction instruction = {&ADDRESS_ASSOCIATED_TOKEN_PROGRAM, metas, COUNT(metas), &tag, sizeof tag};
    return invoke(context, &instruction, NULL);
}

/* Move tokens; `seeds` (NULL: the authority signed the transaction) signs for an authority that is our PDA. */
NOINLINE u64 transfer_tokens(const Context *context, const TokenTransfer *transfer, const Slice *seeds) {
    AccountMeta metas[] = {{context->accounts[transfer->from].key, true, false},
                           {context->accounts[transfer->to].key, true, false},
                           {context->accounts[transfer->authority].key, false, true}};
    struct PACKED {
        u8 tag;
        u64 amount;
    } data = {TOKEN_TRANSFER, transfer->amount};
    Instruction instruction = {&ADDRESS_TOKEN_PROGRAM, metas, COUNT(metas), (const u8 *)&data, sizeof data};
    return invoke(context, &instruction, seeds);
}
