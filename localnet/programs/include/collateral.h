/*
 * The collateral program, as its caller sees it: vaults checked and read, and the calls that move what is in them.
 *
 * A call is signed by this program's `cpi_authority`, which the collateral program knows by this program's id. Amounts
 * of zero make no call: there is nothing to move, and the other side refuses them.
 */
#pragma once
#include "anchor.h"

#define COLLATERAL_ACCOUNT_VAULT 0x919f09649b5fbd13ULL
#define COLLATERAL_DEPOSIT 0xb6f2e15289c623f2ULL
#define COLLATERAL_INITIALIZE_VAULT 0xa43f81472ca3bf30ULL
#define COLLATERAL_LOCK 0x65d3680c7a87d8a1ULL
#define COLLATERAL_TRANSFER 0x61fb48f21b3fa39dULL
#define COLLATERAL_UNLOCK 0xbe84d18193ddd5a7ULL

static const char VAULT_SEED[] = {'v', 'a', 'u', 'l', 't'};
static const char VAULT_AUTHORITY_SEED[] = {'v', 'a', 'u', 'l', 't', '_', 'a', 'u', 't', 'h', 'o', 'r', 'i', 't', 'y'};
static const char CPI_AUTHORITY_SEED[] = {'c', 'p', 'i', '_', 'a', 'u', 't', 'h', 'o', 'r', 'i', 't', 'y'};

typedef struct PACKED {
    u64 discriminator;
    Pubkey owner, token_account;
    u64 total_balance, locked_balance, available_balance, total_deposited, total_withdrawn;
    i64 created_at;
    u64 next_request;
    u8 bump;
} CollateralVault;

/* Where an instruction lists what a signed call needs, and the bump of the authority that signs. */
typedef struct {
    u64 vault_authority, cpi_authority;
    u8 bump;
} CollateralCaller;

/* By account index. */
typedef struct {
    u64 from_vault, to_vault, from_tokens, to_tokens;
} CollateralRoute;

typedef struct PACKED {
    u64 discriminator, amount;
} CollateralAmount;

/* A context in which the collateral program is the owner that checks ask for. */
INLINE Context collateral_context(const Context *context) {
    Context foreign = *context;
    foreign.program_id = &ADDRESS_COLLATERAL_VAULT_PROGRAM;
    return foreign;
}

/* The collateral vault of `owner`, at its address. */
NOINLINE u64 load_vault(const Context *context, u64 account, const Pubkey *owner, const CollateralVault **vault) {
    Context foreign = collateral_context(context);
    TRY(check_type(&foreign, account, COLLATERAL_ACCOUNT_VAULT));
    const AccountInfo *info = &context->accounts[account];
    const CollateralVault *state = (const CollateralVault *)info->data;
    if (data_len(info) < sizeof *state) return fail_account(context, account, ERROR_ACCOUNT_DID_NOT_DESERIALIZE);
    Slice seeds[] = {{VAULT_SEED, sizeof VAULT_SEED}, {owner, sizeof(Pubkey)}, {&state->bump, 1}};
    TRY(check_pda(&foreign, account, seeds, COUNT(seeds)));
    *vault = state;
    return 0;
}

/* The account holds the vault's tokens. */
INLINE u64 check_vault_tokens(const Context *context, u64 account, const CollateralVault *vault) {
    return check_address(context, account, &vault->token_account);
}

/* The collateral program's settings are at their address. */
NOINLINE u64 check_vault_authority(const Context *context, u64 account) {
    Context foreign = collateral_context(context);
    Slice seeds[2] = {{VAULT_AUTHORITY_SEED, sizeof VAULT_AUTHORITY_SEED}};
    u8 bump;
    return find_pda(&foreign, account, seeds, 1, &bump);
}

/* The settings and our own authority are at their addresses. */
NOINLINE u64 check_caller(const Context *context, u64 vault_authority, u64 cpi_authority, CollateralCaller *caller) {
    TRY(check_vault_authority(context, vault_authority));
    Slice seeds[2] = {{CPI_AUTHORITY_SEED, sizeof CPI_AUTHORITY_SEED}};
    caller->vault_authority = vault_authority;
    caller->cpi_authority = cpi_authority;
    return find_pda(context, cpi_authority, seeds, 1, &caller->bump);
}

/* A call with the three accounts that every signed one begins with; `metas` has room for them in front. */
NOINLINE u64 call_signed(const Context *context, const CollateralCaller *caller, AccountMeta *metas, u64 count,
                         const CollateralAmount *data) {
    metas[0] = (AccountMeta){context->accounts[caller->cpi_authority].key, false, true};
    metas[1] = (AccountMeta){context->program_id, false, false};
    metas[2] = (AccountMeta){context->accounts[caller->vault_authority].key, false, false};
    Slice seeds[] = {{CPI_AUTHORITY_SEED, sizeof CPI_AUTHORITY_SEED}, {&caller->bump, 1}};
    Slice signer = {seeds, COUNT(seeds)};
    Instruction instruction = {&ADDRESS_COLLATERAL_VAULT_PROGRAM, metas, count, (const u8 *)data, sizeof *data};
    return data->amount ? invoke(context, &instruction, &signer) : 0;
}

/* COLLATERAL_LOCK: available to locked; COLLATERAL_UNLOCK: back. */
NOINLINE u64 call_lock(const Context *context, const CollateralCaller *caller, u64 discriminator, u64 vault,
                       u64 amount) {
    AccountMeta metas[4];
    metas[3] = (AccountMeta){context->accounts[vault].key, true, false};
    CollateralAmount data = {discriminator, amount};
    return call_signed(context, caller, metas, COUNT(metas), &data);
}

/* From what one vault has locked to what another has available. */
NOINLINE u64 call_transfer(const Context *context, const CollateralCaller *caller, const CollateralRoute *route,
                           u64 amount) {
    AccountMeta metas[8];
    metas[3] = (AccountMeta){context->accounts[route->from_vault].key, true, false};
    metas[4] = (AccountMeta){context->accounts[route->to_vault].key, true, false};
    metas[5] = (AccountMeta){context->accounts[route->from_tokens].key, true, false};
    metas[6] = (AccountMeta){context->accounts[route->to_tokens].key, true, false};
    metas[7] = (AccountMeta){&ADDRESS_TOKEN_PROGRAM, false, false};
    CollateralAmount data = {COLLATERAL_TRANSFER, amount};
    return call_signed(context, caller, metas, COUNT(metas), &data);
}
