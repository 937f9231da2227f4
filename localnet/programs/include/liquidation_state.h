/*
 * What liquidation_engine keeps: markets, positions, the fund. Checked where they are read, and written back.
 *
 * The engine's own, and not support for others; it is here because a program is one C file and this folder.
 */
#pragma once
#include "anchor.h"
#include "borsh.h"
#include "margin.h"

#define SYMBOL_BYTES_MAX 16
#define MARKET_BYTES (8 + 4 + SYMBOL_BYTES_MAX + 32 + 8 + 2 + 2 + 1 + 1)
#define POSITION_BYTES (8 + 32 + 4 + SYMBOL_BYTES_MAX + 1 + 8 + 8 + 8 + 2 + 2 + 8 + 1)

static const char POSITION_SEED[] = {'p', 'o', 's', 'i', 't', 'i', 'o', 'n'};
static const char MARKET_SEED[] = {'m', 'a', 'r', 'k', 'e', 't'};
static const char FUND_SEED[] = {'i', 'n', 's', 'u', 'r', 'a', 'n', 'c', 'e', '_', 'f', 'u', 'n', 'd'};

/* Decoded: the symbol's length moves what comes after it. `symbol` points to where it was read. */
typedef struct {
    Slice symbol;
    const u8 *feed_id;
    i64 max_price_age;
    u64 max_conf_bps, max_leverage;
    bool halted;
    u8 bump;
} Market;

typedef struct {
    Pubkey owner;
    Slice symbol;
    Exposure exposure;
    u64 leverage;
    i64 opened_at;
    u8 bump;
} Position;

typedef struct PACKED {
    u64 discriminator;
    Pubkey authority;
    u64 balance, total_contributions, total_bad_debt_covered, utilization_ratio;
    u8 bump;
} InsuranceFund;
_Static_assert(sizeof(InsuranceFund) == SIZE_INSURANCE_FUND, "the IDL's size");

/* -- the fund ----------------------------------------------------------------------------------------------------- */

NOINLINE u64 load_fund(const Context *context, u64 account, InsuranceFund **fund) {
    TRY(check_type(context, account, ACCOUNT_INSURANCE_FUND));
    const AccountInfo *info = &context->accounts[account];
    InsuranceFund *state = (InsuranceFund *)info->data;
    if (data_len(info) < sizeof *state) return fail_account(context, account, ERROR_ACCOUNT_DID_NOT_DESERIALIZE);
    Slice seeds[] = {{FUND_SEED, sizeof FUND_SEED}, {&state->bump, 1}};
    TRY(check_pda(context, account, seeds, COUNT(seeds)));
    *fund = state;
    return 0;
}

/* Set what the fund has covered in all and been paid in all, and the ratio of the two. */
NOINLINE u64 set_totals(InsuranceFund *fund, u64 covered, u64 contributions) {
    u128 utilization = multiply_u64(covered, BPS);
    u64 remainder;
    if (contributions)
        divide_by_u64(&utilization, contributions, &utilization, &remainder);
    else
        utilization = (u128){0, 0};
    if (utilization.high) return fail(ERROR_MATH_OVERFLOW);
    fund->total_bad_debt_covered = covered;
    fund->total_contributions = contributions;
    fund->utilization_ratio = utilization.low;
    return 0;
}

/* Book bad debt against the balance; `covered` is what the balance suffices for. */
NOINLINE u64 cover_bad_debt(InsuranceFund *fund, u64 bad_debt, u64 *covered) {
    u64 total;
    *covered = bad_debt < fund->balance ? bad_debt : fund->balance;
    if (__builtin_add_overflow(fund->total_bad_debt_covered, *covered, &total)) return fail(ERROR_MATH_OVERFLOW);
    return set_totals(fund, total, fund->total_contributions);
}

/* -- markets ------------------------------------------------------------------------------------------------------ */

NOINLINE u64 read_market(const Context *context, u64 account, Market *market) {
    TRY(check_type(context, account, ACCOUNT_MARKET));
    const AccountInfo *info = &context->accounts[account];
    BorshReader reader = {info->data + 8, info->data + data_len(info), false};
    market->symbol = read_string(&reader);
    market->feed_id = read_bytes(&reader, 32);
    market->max_price_age = (i64)read_u64(&reader);
    market->max_conf_bps = read_u16(&reader);
    market->max_leverage = read_u16(&reader);
    market->halted = read_bool(&reader);
    market->bump = read_u8(&reader);
    if (reader.failed || market->symbol.len > SYMBOL_BYTES_MAX)
        return fail_account(context, account, ERROR_ACCOUNT_DID_NOT_DESERIALIZE);
    return 0;
}

/* The market of `symbol`; NULL: of the symbol that it names itself. */
NOINLINE u64 load_market(const Context *context, u64 account, const Slice *symbol, Market *market) {
    TRY(read_market(context, account, market));
    Slice seeds[] = {{MARKET_SEED, sizeof MARKET_SEED}, symbol ? *symbol : market->symbol, {&market->bump, 1}};
    return check_pda(context, account, seeds, COUNT(seeds));
}

/* The symbol is written where it may have been read: its bytes do not move. */
NOINLINE u64 write_market(const Context *context, u64 account, const Market *market) {
    const AccountInfo *info = &context->accounts[account];
    BorshWriter writer = {info->data, info->data + data_len(info), false};
    write_u64(&writer, ACCOUNT_MARKET);
    write_string(&writer, market->symbol);
    write_key(&writer, (const Pubkey *)market->feed_id);
    write_u64(&writer, (u64)market->max_price_age);
    write_u16(&writer, (u16)market->max_conf_bps);
    write_u16(&writer, (u16)market->max_leverage);
    write_u8(&writer, market->halted);
    write_u8(&writer, market->bump);
    return writer.failed ? fail_account(context, account, ERROR_ACCOUNT_DID_NOT_SERIALIZE) : 0;
}

/* -- positions ---------------------------------------------------------------------------------------------------- */

/* The position in `account`: ours, of that type, at the address its own fields name. */
NOINLINE u64 load_position(const Context *context, u64 account, Position *position) {
    TRY(check_type(context, account, ACCOUNT_POSITION));
    const AccountInfo *info = &context->accounts[account];
    BorshReader reader = {info->data + 8, info->data + data_len(info), false};
    Exposure *exposure = &position->exposure;
    read_key(&reader, &position->owner);
    position->symbol = read_string(&reader);
    exposure->is_long = read_bool(&reader);
    exposure->size = read_u64(&reader);
    exposure->collateral = read_u64(&reader);
    exposure->entry_price = read_u64(&reader);
    position->leverage = read_u16(&reader);
    exposure->maintenance_bps = read_u16(&reader);
    position->opened_at = (i64)read_u64(&reader);
    position->bump = read_u8(&reader);
    if (reader.failed || position->symbol.len > SYMBOL_BYTES_MAX)
        return fail_account(context, account, ERROR_ACCOUNT_DID_NOT_DESERIALIZE);
    Slice seeds[] = {{POSITION_SEED, sizeof POSITION_SEED},
                     {&position->owner, sizeof(Pubkey)},
                     position->symbol,
                     {&position->bump, 1}};
    return check_pda(context, account, seeds, COUNT(seeds));
}

NOINLINE u64 write_position(const Context *context, u64 account, const Position *position) {
    const AccountInfo *info = &context->accounts[account];
    BorshWriter writer = {info->data, info->data + data_len(info), false};
    const Exposure *exposure = &position->exposure;
    write_u64(&writer, ACCOUNT_POSITION);
    write_key(&writer, &position->owner);
    write_string(&writer, position->symbol);
    write_u8(&writer, exposure->is_long);
    write_u64(&writer, exposure->size);
    write_u64(&writer, exposure->collateral);
    write_u64(&writer, exposure->entry_price);
    write_u16(&writer, (u16)position->leverage);
    write_u16(&writer, (u16)exposure->maintenance_bps);
    write_u64(&writer, (u64)position->opened_at);
    write_u8(&writer, position->bump);
    return writer.failed ? fail_account(context, account, ERROR_ACCOUNT_DID_NOT_SERIALIZE) : 0;
}
