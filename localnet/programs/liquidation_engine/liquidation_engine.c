/*
 * liquidation_engine: leveraged positions, liquidations, the insurance fund.
 *
 * A position is collateral locked in its owner's collateral vault and a bet on a price; the insurance fund takes the
 * other side of every bet. Below its maintenance margin anybody but the owner may liquidate it for half of the fee: in
 * part where that restores it, in full where nothing does. What a position owes beyond its collateral is bad debt,
 * which is booked and moves no tokens. All tokens lie in collateral_vault.
 *
 * Anchor's order holds in every instruction: arguments, accounts, then state.
 */
#include "anchor.h"
#include "borsh.h"
#include "collateral.h"
#include "emit_cpi.h"
#include "liquidation_state.h"
#include "margin.h"
#include "oracle.h"
#include "system.h"

#define ACCOUNTS_MAX 20 /* what is kept of an instruction's accounts; those after it are of no use here */

/* -- the fund ----------------------------------------------------------------------------------------------------- */

/* The fund's vault is made first: its owner is the fund's address, which needs no account to sign with. */
NOINLINE u64 create_fund_vault(const Context *context, const Slice *signer) {
    const AccountInfo *accounts = context->accounts;
    AccountMeta metas[] = {{accounts[INITIALIZE_INSURANCE_FUND_AUTHORITY].key, true, true},
                           {accounts[INITIALIZE_INSURANCE_FUND_INSURANCE_FUND].key, false, true},
                           {accounts[INITIALIZE_INSURANCE_FUND_FUND_VAULT].key, true, false},
                           {accounts[INITIALIZE_INSURANCE_FUND_FUND_TOKEN_ACCOUNT].key, true, false},
                           {accounts[INITIALIZE_INSURANCE_FUND_MINT].key, false, false},
                           {accounts[INITIALIZE_INSURANCE_FUND_VAULT_AUTHORITY].key, false, false},
                           {&ADDRESS_TOKEN_PROGRAM, false, false},
                           {&ADDRESS_ASSOCIATED_TOKEN_PROGRAM, false, false},
                           {&SYSTEM_PROGRAM, false, false}};
    u64 data = COLLATERAL_INITIALIZE_VAULT;
    Instruction instruction = {&ADDRESS_COLLATERAL_VAULT_PROGRAM, metas, COUNT(metas), (const u8 *)&data, sizeof data};
    return invoke(context, &instruction, signer);
}

/* Whoever comes first is the authority: there is one fund. */
NOINLINE u64 initialize_insurance_fund(Context *context) {
    LOG("Instruction: InitializeInsuranceFund");
    CHECK_ACCOUNTS(context, INITIALIZE_INSURANCE_FUND);
    u8 bump;
    Slice seeds[2] = {{FUND_SEED, sizeof FUND_SEED}};
    TRY(find_pda(context, INITIALIZE_INSURANCE_FUND_INSURANCE_FUND, seeds, 1, &bump));
    TRY(check_vault_authority(context, INITIALIZE_INSURANCE_FUND_VAULT_AUTHORITY));
    const AccountInfo *info = &context->accounts[INITIALIZE_INSURANCE_FUND_INSURANCE_FUND];

    Slice signer = {seeds, COUNT(seeds)};
    TRY(create_fund_vault(context, &signer));
    const CollateralVault *vault;
    TRY(load_vault(context, INITIALIZE_INSURANCE_FUND_FUND_VAULT, info->key, &vault));
    TRY(create_pda(context, INITIALIZE_INSURANCE_FUND_AUTHORITY, INITIALIZE_INSURANCE_FUND_INSURANCE_FUND,
                   sizeof(InsuranceFund), &signer));
    InsuranceFund *fund = (InsuranceFund *)info->data; /* all else is zero: the account is new */
    fund->discriminator = ACCOUNT_INSURANCE_FUND;
    fund->authority = *context->accounts[INITIALIZE_INSURANCE_FUND_AUTHORITY].key;
    fund->bump = bump;
    return 0;
}

/* The deposit is the contributor's own: its signature reaches through the call. */
NOINLINE u64 call_deposit(const Context *context, u64 amount) {
    const AccountInfo *accounts = context->accounts;
    AccountMeta metas[] = {{accounts[CONTRIBUTE_CONTRIBUTOR].key, false, true},
                           {accounts[CONTRIBUTE_FUND_VAULT].key, true, false},
                           {accounts[CONTRIBUTE_CONTRIBUTOR_TOKEN_ACCOUNT].key, true, false},
                           {accounts[CONTRIBUTE_FUND_TOKEN_ACCOUNT].key, true, false},
                           {accounts[CONTRIBUTE_VAULT_AUTHORITY].key, false, false},
                           {&ADDRESS_TOKEN_PROGRAM, false, false}};
    CollateralAmount data = {COLLATERAL_DEPOSIT, amount};
    Instruction instruction = {&ADDRESS_COLLATERAL_VAULT_PROGRAM, metas, COUNT(metas), (const u8 *)&data, sizeof data};
    return amount ? invoke(context, &instruction, NULL) : 0;
}

NOINLINE u64 contribute(Context *context) {
    LOG("Instruction: Contribute");
    BorshReader reader = {context->data + 8, context->data + context->data_len, false};
    u64 amount = read_u64(&reader);
    if (reader.failed) return fail(ERROR_INSTRUCTION_DID_NOT_DESERIALIZE);
    CHECK_ACCOUNTS(context, CONTRIBUTE);
    InsuranceFund *fund;
    const CollateralVault *vault;
    EventSource source;
    TRY(load_fund(context, CONTRIBUTE_INSURANCE_FUND, &fund));
    TRY(load_vault(context, CONTRIBUTE_FUND_VAULT, context->accounts[CONTRIBUTE_INSURANCE_FUND].key, &vault));
    TRY(check_vault_tokens(context, CONTRIBUTE_FUND_TOKEN_ACCOUNT, vault));
    TRY(check_vault_authority(context, CONTRIBUTE_VAULT_AUTHORITY));
    TRY(check_event_source(context, CONTRIBUTE_EVENT_AUTHORITY, CONTRIBUTE_PROGRAM, &source));

    u64 total;
    if (__builtin_add_overflow(fund->total_contributions, amount, &total)) return fail(ERROR_MATH_OVERFLOW);
    TRY(call_deposit(context, amount));
    TRY(set_totals(fund, fund->total_bad_debt_covered, total));
    fund->balance = vault->total_balance;

    EventInstruction event;
    begin_event(&event, EVENT_INSURANCE_CONTRIBUTION);
    write_key(&event.writer, context->accounts[CONTRIBUTE_CONTRIBUTOR].key);
    write_u64(&event.writer, amount);
    write_u64(&event.writer, fund->balance);
    write_u64(&event.writer, (u64)unix_timestamp());
    return emit_cpi(context, &source, &event);
}

/* -- markets ------------------------------------------------------------------------------------------------------ */

NOINLINE u64 create_market(Context *context) {
    LOG("Instruction: CreateMarket");
    Market market;
    BorshReader reader = {context->data + 8, context->data + context->data_len, false};
    market.symbol = read_string(&reader);
    market.feed_id = read_bytes(&reader, 32);
    market.max_price_age = (i64)read_u64(&reader);
    market.max_conf_bps = read_u16(&reader);
    market.max_leverage = read_u16(&reader);
    market.halted = false;
    if (reader.failed) return fail(ERROR_INSTRUCTION_DID_NOT_DESERIALIZE);
    CHECK_ACCOUNTS(context, CREATE_MARKET);
    InsuranceFund *fund;
    EventSource source;
    TRY(load_fund(context, CREATE_MARKET_INSURANCE_FUND, &fund));
    TRY(check_has_one(context, CREATE_MARKET_INSURANCE_FUND, &fund->authority, CREATE_MARKET_AUTHORITY));
    if (market.symbol.len > SYMBOL_BYTES_MAX) return fail(ERROR_SYMBOL_TOO_LONG); /* nor a seed, if above 32 */
    Slice seeds[3] = {{MARKET_SEED, sizeof MARKET_SEED}, market.symbol};
    TRY(find_pda(context, CREATE_MARKET_MARKET, seeds, 2, &market.bump));
    TRY(check_event_source(context, CREATE_MARKET_EVENT_AUTHORITY, CREATE_MARKET_PROGRAM, &source));

    if (market.max_leverage == 0 || market.max_leverage > LEVERAGE_MAX) return fail(ERROR_INVALID_LEVERAGE);
    Slice signer = {seeds, COUNT(seeds)};
    TRY(create_pda(context, CREATE_MARKET_AUTHORITY, CREATE_MARKET_MARKET, MARKET_BYTES, &signer));
    TRY(write_market(context, CREATE_MARKET_MARKET, &market));

    EventInstruction event;
    begin_event(&event, EVENT_MARKET_CREATED);
    write_string(&event.writer, market.symbol);
    write_key(&event.writer, (const Pubkey *)market.feed_id);
    write_u64(&event.writer, (u64)unix_timestamp());
    return emit_cpi(context, &source, &event);
}

/* Nobody opens a position in a halted market; closing, liquidating and topping up go on. */
NOINLINE u64 set_market_halted(Context *context) {
    LOG("Instruction: SetMarketHalted");
    BorshReader reader = {context->data + 8, context->data + context->data_len, false};
    bool halted = read_bool(&reader);
    if (reader.failed) return fail(ERROR_INSTRUCTION_DID_NOT_DESERIALIZE);
    CHECK_ACCOUNTS(context, SET_MARKET_HALTED);
    InsuranceFund *fund;
    Market market;
    TRY(load_fund(context, SET_MARKET_HALTED_INSURANCE_FUND, &fund));
    TRY(check_has_one(context, SET_MARKET_HALTED_INSURANCE_FUND, &fund->authority, SET_MARKET_HALTED_AUTHORITY));
    TRY(load_market(context, SET_MARKET_HALTED_MARKET, NULL, &market));
    market.halted = halted;
    return write_market(context, SET_MARKET_HALTED_MARKET, &market);
}

/* -- positions ---------------------------------------------------------------------------------------------------- */

INLINE u64 read_market_price(const Context *context, u64 account, const Market *market, OraclePrice *oracle) {
    PriceLimits limits = {market->feed_id, market->max_price_age, market->max_conf_bps};
    return read_price(context, account, &limits, oracle);
}

/* A position may be opened at this price: sets its entry price and its maintenance margin, or says why not. */
NOINLINE u64 check_opening(const Context *context, const Market *market, Position *position) {
    OraclePrice oracle;
    u128 notional, allowed = multiply_u64(position->exposure.collateral, position->leverage);
    if (market->halted) return fail_account(context, OPEN_POSITION_MARKET, ERROR_MARKET_HALTED);
    if (position->leverage == 0 || position->leverage > market->max_leverage) return fail(ERROR_INVALID_LEVERAGE);
    TRY(read_market_price(context, OPEN_POSITION_PRICE_UPDATE, market, &oracle));
    notional_of(position->exposure.size, oracle.price, &notional);
    if (is_less(notional, (u128){0, NOTIONAL_MIN}) || is_less(allowed, notional))
        return fail(ERROR_INSUFFICIENT_COLLATERAL);
    position->exposure.entry_price = oracle.price;
    position->exposure.maintenance_bps = maintenance_of(&notional, position->exposure.collateral);
    if (position->exposure.maintenance_bps == 0) return fail(ERROR_INVALID_LEVERAGE);
    /* Twice the confidence within the margin: nobody is liquidated by what the oracle itself does not know. */
    if (is_unsure(&oracle, position->exposure.maintenance_bps, 2 * BPS))
        return fail_account(context, OPEN_POSITION_PRICE_UPDATE, ERROR_LOW_CONFIDENCE);
    return 0;
}

NOINLINE u64 emit_opened(const Context *context, const EventSource *source, const Position *position) {
    EventInstruction event;
    begin_event(&event, EVENT_POSITION_OPENED);
    write_key(&event.writer, &position->owner);
    write_key(&event.writer, context->accounts[OPEN_POSITION_POSITION].key);
    write_string(&event.writer, position->symbol);
    write_u8(&event.writer, position->exposure.is_long);
    write_u64(&event.writer, position->exposure.size);
    write_u64(&event.writer, position->exposure.collateral);
    write_u64(&event.writer, position->exposure.entry_price);
    write_u16(&event.writer, (u16)position->leverage);
    write_u64(&event.writer, (u64)position->opened_at);
    return emit_cpi(context, source, &event);
}

NOINLINE u64 open_position(Context *context) {
    LOG("Instruction: OpenPosition");
    Position position;
    BorshReader reader = {context->data + 8, context->data + context->data_len, false};
    position.symbol = read_string(&reader);
    position.exposure.is_long = read_bool(&reader);
    position.exposure.size = read_u64(&reader);
    position.exposure.collateral = read_u64(&reader);
    position.leverage = read_u16(&reader);
    if (reader.failed) return fail(ERROR_INSTRUCTION_DID_NOT_DESERIALIZE);
    CHECK_ACCOUNTS(context, OPEN_POSITION);
    if (position.symbol.len > SYMBOL_BYTES_MAX) return fail(ERROR_SYMBOL_TOO_LONG);
    position.owner = *context->accounts[OPEN_POSITION_OWNER].key;
    position.opened_at = unix_timestamp();

    Market market;
    const CollateralVault *vault;
    CollateralCaller caller;
    EventSource source;
    Slice seeds[4] = {
        {POSITION_SEED, sizeof POSITION_SEED}, {&position.owner, sizeof(Pubkey)}, position.symbol};
    TRY(load_market(context, OPEN_POSITION_MARKET, &position.symbol, &market));
    TRY(find_pda(context, OPEN_POSITION_POSITION, seeds, 3, &position.bump));
    TRY(load_vault(context, OPEN_POSITION_OWNER_VAULT, &position.owner, &vault));
    TRY(check_caller(context, OPEN_POSITION_VAULT_AUTHORITY, OPEN_POSITION_CPI_AUTHORITY, &caller));
    TRY(check_event_source(context, OPEN_POSITION_EVENT_AUTHORITY, OPEN_POSITION_PROGRAM, &source));

    TRY(check_opening(context, &market, &position));
    Slice signer = {seeds, COUNT(seeds)};
    TRY(create_pda(context, OPEN_POSITION_OWNER, OPEN_POSITION_POSITION, POSITION_BYTES, &signer));
    TRY(write_position(context, OPEN_POSITION_POSITION, &position));
    TRY(call_lock(context, &caller, COLLATERAL_LOCK, OPEN_POSITION_OWNER_VAULT, position.exposure.collateral));
    return emit_opened(context, &source, &position);
}

NOINLINE u64 add_collateral(Context *context) {
    LOG("Instruction: AddCollateral");
    BorshReader reader = {context->data + 8, context->data + context->data_len, false};
    u64 amount = read_u64(&reader);
    if (reader.failed) return fail(ERROR_INSTRUCTION_DID_NOT_DESERIALIZE);
    CHECK_ACCOUNTS(context, ADD_COLLATERAL);
    Position position;
    const CollateralVault *vault;
    CollateralCaller caller;
    EventSource source;
    TRY(load_position(context, ADD_COLLATERAL_POSITION, &position));
    TRY(check_has_one(context, ADD_COLLATERAL_POSITION, &position.owner, ADD_COLLATERAL_OWNER));
    TRY(load_vault(context, ADD_COLLATERAL_OWNER_VAULT, &position.owner, &vault));
    TRY(check_caller(context, ADD_COLLATERAL_VAULT_AUTHORITY, ADD_COLLATERAL_CPI_AUTHORITY, &caller));
    TRY(check_event_source(context, ADD_COLLATERAL_EVENT_AUTHORITY, ADD_COLLATERAL_PROGRAM, &source));

    u64 *collateral = &position.exposure.collateral;
    if (__builtin_add_overflow(*collateral, amount, collateral)) return fail(ERROR_MATH_OVERFLOW);
    TRY(write_position(context, ADD_COLLATERAL_POSITION, &position));
    TRY(call_lock(context, &caller, COLLATERAL_LOCK, ADD_COLLATERAL_OWNER_VAULT, amount));

    EventInstruction event;
    begin_event(&event, EVENT_COLLATERAL_ADDED);
    write_key(&event.writer, &position.owner);
    write_key(&event.writer, context->accounts[ADD_COLLATERAL_POSITION].key);
    write_u64(&event.writer, amount);
    write_u64(&event.writer, *collateral);
    write_u64(&event.writer, (u64)unix_timestamp());
    return emit_cpi(context, &source, &event);
}

/* -- closing ------------------------------------------------------------------------------------------------------ */

typedef struct {
    Position position;
    Market market;
    OraclePrice oracle;
    Valuation value;
    InsuranceFund *fund;
    const CollateralVault *owner_vault, *fund_vault;
    CollateralCaller caller;
    EventSource source;
} Closing;

NOINLINE u64 load_closing(const Context *context, Closing *closing) {
    TRY(load_position(context, CLOSE_POSITION_POSITION, &closing->position));
    const Pubkey *owner = &closing->position.owner;
    TRY(check_has_one(context, CLOSE_POSITION_POSITION, owner, CLOSE_POSITION_OWNER));
    TRY(load_market(context, CLOSE_POSITION_MARKET, &closing->position.symbol, &closing->market));
    TRY(load_fund(context, CLOSE_POSITION_INSURANCE_FUND, &closing->fund));
    TRY(load_vault(context, CLOSE_POSITION_OWNER_VAULT, owner, &closing->owner_vault));
    TRY(check_vault_tokens(context, CLOSE_POSITION_OWNER_VAULT_TOKEN_ACCOUNT, closing->owner_vault));
    TRY(load_vault(context, CLOSE_POSITION_FUND_VAULT, context->accounts[CLOSE_POSITION_INSURANCE_FUND].key,
                   &closing->fund_vault));
    TRY(check_vault_tokens(context, CLOSE_POSITION_FUND_TOKEN_ACCOUNT, closing->fund_vault));
    TRY(check_caller(context, CLOSE_POSITION_VAULT_AUTHORITY, CLOSE_POSITION_CPI_AUTHORITY, &closing->caller));
    return check_event_source(context, CLOSE_POSITION_EVENT_AUTHORITY, CLOSE_POSITION_PROGRAM, &closing->source);
}

/*
 * A loss goes from the owner's collateral to the fund, a profit from the fund to the owner; the rest is unlocked. The
 * pnl fits its event's i64, which has been checked.
 */
NOINLINE u64 settle_closing(const Context *context, const Closing *closing) {
    const CollateralCaller *caller = &closing->caller;
    u64 unlocked = closing->position.exposure.collateral, amount = closing->value.pnl.magnitude.low;
    if (closing->value.pnl.is_negative) {
        CollateralRoute loss = {CLOSE_POSITION_OWNER_VAULT, CLOSE_POSITION_FUND_VAULT,
                                CLOSE_POSITION_OWNER_VAULT_TOKEN_ACCOUNT, CLOSE_POSITION_FUND_TOKEN_ACCOUNT};
        TRY(call_transfer(context, caller, &loss, amount));
        unlocked -= amount; /* not above the collateral: equity is not negative */
    } else {
        CollateralRoute profit = {CLOSE_POSITION_FUND_VAULT, CLOSE_POSITION_OWNER_VAULT,
                                  CLOSE_POSITION_FUND_TOKEN_ACCOUNT, CLOSE_POSITION_OWNER_VAULT_TOKEN_ACCOUNT};
        if (closing->fund_vault->available_balance < amount) return fail(ERROR_FUND_INSUFFICIENT);
        TRY(call_lock(context, caller, COLLATERAL_LOCK, CLOSE_POSITION_FUND_VAULT, amount));
        TRY(call_transfer(context, caller, &profit, amount));
    }
    return call_lock(context, caller, COLLATERAL_UNLOCK, CLOSE_POSITION_OWNER_VAULT, unlocked);
}

NOINLINE u64 close_position(Context *context) {
    LOG("Instruction: ClosePosition");
    CHECK_ACCOUNTS(context, CLOSE_POSITION);
    Closing closing;
    TRY(load_closing(context, &closing));
    TRY(read_market_price(context, CLOSE_POSITION_PRICE_UPDATE, &closing.market, &closing.oracle));
    const Position *position = &closing.position;
    i64 pnl;
    if (!value_at(&position->exposure, closing.oracle.price, &closing.value)) return fail(ERROR_MATH_OVERFLOW);
    if (closing.value.equity.is_negative) return fail(ERROR_INSUFFICIENT_COLLATERAL);
    if (!to_i64(&closing.value.pnl, &pnl)) return fail(ERROR_MATH_OVERFLOW);
    TRY(settle_closing(context, &closing));
    closing.fund->balance = closing.fund_vault->total_balance;

    EventInstruction event;
    begin_event(&event, EVENT_POSITION_CLOSED);
    write_key(&event.writer, &position->owner);
    write_key(&event.writer, context->accounts[CLOSE_POSITION_POSITION].key);
    write_string(&event.writer, position->symbol);
    write_u64(&event.writer, position->exposure.size);
    write_u64(&event.writer, closing.oracle.price);
    write_u64(&event.writer, (u64)pnl);
    write_u64(&event.writer, (u64)unix_timestamp());
    TRY(emit_cpi(context, &closing.source, &event));
    AccountInfo *accounts = context->accounts;
    return close_account(&accounts[CLOSE_POSITION_POSITION], &accounts[CLOSE_POSITION_OWNER])
               ? 0
               : fail(ERROR_MATH_OVERFLOW);
}

/* -- liquidation -------------------------------------------------------------------------------------------------- */

/* The two instructions have the same accounts; their indexes go by the name of one. */
_Static_assert((u64)LIQUIDATE_FULL_PROGRAM == (u64)LIQUIDATE_PARTIAL_PROGRAM, "the IDL's order");

typedef struct {
    Position position;
    Market market;
    OraclePrice oracle;
    Valuation value;
    Settlement settlement;
    InsuranceFund *fund;
    const CollateralVault *owner_vault, *liquidator_vault, *fund_vault;
    CollateralCaller caller;
    EventSource source;
    u64 size; /* the most to close */
    bool is_full;
} Liquidation;

NOINLINE u64 load_liquidation(const Context *context, Liquidation *liquidation) {
    const AccountInfo *accounts = context->accounts;
    const Pubkey *owner = &liquidation->position.owner;
    TRY(load_position(context, LIQUIDATE_FULL_POSITION, &liquidation->position));
    TRY(check_has_one(context, LIQUIDATE_FULL_POSITION, owner, LIQUIDATE_FULL_POSITION_OWNER));
    TRY(load_market(context, LIQUIDATE_FULL_MARKET, &liquidation->position.symbol, &liquidation->market));
    TRY(load_fund(context, LIQUIDATE_FULL_INSURANCE_FUND, &liquidation->fund));
    if (keys_equal(accounts[LIQUIDATE_FULL_LIQUIDATOR].key, owner))
        return fail_account(context, LIQUIDATE_FULL_LIQUIDATOR, ERROR_SELF_LIQUIDATION);
    TRY(load_vault(context, LIQUIDATE_FULL_OWNER_VAULT, owner, &liquidation->owner_vault));
    TRY(check_vault_tokens(context, LIQUIDATE_FULL_OWNER_VAULT_TOKEN_ACCOUNT, liquidation->owner_vault));
    TRY(load_vault(context, LIQUIDATE_FULL_LIQUIDATOR_VAULT, accounts[LIQUIDATE_FULL_LIQUIDATOR].key,
                   &liquidation->liquidator_vault));
    TRY(check_vault_tokens(context, LIQUIDATE_FULL_LIQUIDATOR_VAULT_TOKEN_ACCOUNT, liquidation->liquidator_vault));
    TRY(load_vault(context, LIQUIDATE_FULL_FUND_VAULT, accounts[LIQUIDATE_FULL_INSURANCE_FUND].key,
                   &liquidation->fund_vault));
    TRY(check_vault_tokens(context, LIQUIDATE_FULL_FUND_TOKEN_ACCOUNT, liquidation->fund_vault));
    TRY(check_caller(context, LIQUIDATE_FULL_VAULT_AUTHORITY, LIQUIDATE_FULL_CPI_AUTHORITY, &liquidation->caller));
    return check_event_source(context, LIQUIDATE_FULL_EVENT_AUTHORITY, LIQUIDATE_FULL_PROGRAM, &liquidation->source);
}

/* Whether the position is below its maintenance margin at the price that its confidence puts in its favour. */
NOINLINE u64 check_liquidatable(const Exposure *exposure, const OraclePrice *oracle) {
    Valuation favourable;
    u64 price;
    bool below;
    if (exposure->is_long) {
        if (__builtin_add_overflow(oracle->price, oracle->conf, &price)) return fail(ERROR_MATH_OVERFLOW);
    } else {
        price = oracle->price > oracle->conf ? oracle->price - oracle->conf : 0;
    }
    if (!value_at(exposure, price, &favourable) || !is_below(&favourable, exposure->maintenance_bps, &below))
        return fail(ERROR_MATH_OVERFLOW);
    return below ? 0 : fail(ERROR_NOT_LIQUIDATABLE);
}

/* What the liquidation does, at the price itself. */
NOINLINE u64 plan_liquidation(Liquidation *liquidation) {
    const Exposure *exposure = &liquidation->position.exposure;
    u64 price = liquidation->oracle.price, size_left;
    bool needs_full, fits;
    TRY(check_liquidatable(exposure, &liquidation->oracle));
    if (!value_at(exposure, price, &liquidation->value) ||
        !plan_partial(exposure, &liquidation->value, price, &size_left, &needs_full))
        return fail(ERROR_MATH_OVERFLOW);
    if (liquidation->is_full != needs_full)
        return fail(needs_full ? ERROR_USE_FULL_LIQUIDATION : ERROR_USE_PARTIAL_LIQUIDATION);
    u64 closed = exposure->size - size_left;
    if (closed > liquidation->size) closed = liquidation->size;
    fits = needs_full ? settle_full(exposure, &liquidation->value, &liquidation->settlement)
                      : settle_partial(exposure, &liquidation->value, price, closed, &liquidation->settlement);
    return fits ? 0 : fail(ERROR_MATH_OVERFLOW);
}

NOINLINE u64 settle_liquidation(const Context *context, const Liquidation *liquidation) {
    const CollateralCaller *caller = &liquidation->caller;
    const Settlement *settlement = &liquidation->settlement;
    CollateralRoute route = {LIQUIDATE_FULL_OWNER_VAULT, LIQUIDATE_FULL_LIQUIDATOR_VAULT,
                             LIQUIDATE_FULL_OWNER_VAULT_TOKEN_ACCOUNT, LIQUIDATE_FULL_LIQUIDATOR_VAULT_TOKEN_ACCOUNT};
    TRY(call_transfer(context, caller, &route, settlement->reward));
    route.to_vault = LIQUIDATE_FULL_FUND_VAULT;
    route.to_tokens = LIQUIDATE_FULL_FUND_TOKEN_ACCOUNT;
    TRY(call_transfer(context, caller, &route, settlement->to_fund));
    return call_lock(context, caller, COLLATERAL_UNLOCK, LIQUIDATE_FULL_OWNER_VAULT, settlement->unlocked);
}

NOINLINE u64 emit_liquidation(const Context *context, const Liquidation *liquidation) {
    const Settlement *settlement = &liquidation->settlement;
    EventInstruction event;
    begin_event(&event, EVENT_LIQUIDATION_EVENT);
    write_key(&event.writer, &liquidation->position.owner);
    write_key(&event.writer, context->accounts[LIQUIDATE_FULL_LIQUIDATOR].key);
    write_string(&event.writer, liquidation->position.symbol);
    write_u64(&event.writer, settlement->closed);
    write_u64(&event.writer, liquidation->oracle.price);
    write_u64(&event.writer, (u64)settlement->margin_before);
    write_u64(&event.writer, (u64)settlement->margin_after);
    write_u64(&event.writer, settlement->reward);
    write_u64(&event.writer, settlement->bad_debt);
    write_u64(&event.writer, (u64)unix_timestamp());
    write_u8(&event.writer, liquidation->is_full);
    return emit_cpi(context, &liquidation->source, &event);
}

NOINLINE u64 book_bad_debt(const Context *context, const Liquidation *liquidation) {
    u64 bad_debt = liquidation->settlement.bad_debt, covered;
    if (bad_debt == 0) return 0;
    TRY(cover_bad_debt(liquidation->fund, bad_debt, &covered));
    EventInstruction event;
    begin_event(&event, EVENT_BAD_DEBT_COVERED);
    write_key(&event.writer, &liquidation->position.owner);
    write_u64(&event.writer, bad_debt);
    write_u64(&event.writer, covered);
    write_u64(&event.writer, liquidation->fund->balance);
    write_u64(&event.writer, (u64)unix_timestamp());
    return emit_cpi(context, &liquidation->source, &event);
}

NOINLINE u64 liquidate(Context *context, bool is_full, u64 size) {
    CHECK_ACCOUNTS(context, LIQUIDATE_FULL);
    Liquidation liquidation;
    liquidation.is_full = is_full;
    liquidation.size = size;
    TRY(load_liquidation(context, &liquidation));
    if (size == 0) return fail(ERROR_INVALID_LIQUIDATION_AMOUNT);
    TRY(read_market_price(context, LIQUIDATE_FULL_PRICE_UPDATE, &liquidation.market, &liquidation.oracle));
    TRY(plan_liquidation(&liquidation));
    TRY(settle_liquidation(context, &liquidation));
    liquidation.fund->balance = liquidation.fund_vault->total_balance;
    TRY(emit_liquidation(context, &liquidation));
    TRY(book_bad_debt(context, &liquidation));

    AccountInfo *accounts = context->accounts;
    if (is_full)
        return close_account(&accounts[LIQUIDATE_FULL_POSITION], &accounts[LIQUIDATE_FULL_POSITION_OWNER])
                   ? 0
                   : fail(ERROR_MATH_OVERFLOW);
    liquidation.position.exposure.size = liquidation.settlement.size_left;
    liquidation.position.exposure.collateral = liquidation.settlement.collateral_left;
    return write_position(context, LIQUIDATE_FULL_POSITION, &liquidation.position);
}

NOINLINE u64 liquidate_partial(Context *context) {
    LOG("Instruction: LiquidatePartial");
    BorshReader reader = {context->data + 8, context->data + context->data_len, false};
    u64 size = read_u64(&reader);
    if (reader.failed) return fail(ERROR_INSTRUCTION_DID_NOT_DESERIALIZE);
    return liquidate(context, false, size);
}

NOINLINE u64 liquidate_full(Context *context) {
    LOG("Instruction: LiquidateFull");
    return liquidate(context, true, U64_MAX);
}

u64 entrypoint(u8 *input) {
    AccountInfo accounts[ACCOUNTS_MAX];
    Context context;
    read_input(input, accounts, ACCOUNTS_MAX, &context);
    if (context.data_len < 8) return fail(ERROR_INSTRUCTION_MISSING);
    switch (load_u64(context.data)) {
        case INSTRUCTION_INITIALIZE_INSURANCE_FUND: return initialize_insurance_fund(&context);
        case INSTRUCTION_CREATE_MARKET: return create_market(&context);
        case INSTRUCTION_SET_MARKET_HALTED: return set_market_halted(&context);
        case INSTRUCTION_CONTRIBUTE: return contribute(&context);
        case INSTRUCTION_OPEN_POSITION: return open_position(&context);
        case INSTRUCTION_ADD_COLLATERAL: return add_collateral(&context);
        case INSTRUCTION_CLOSE_POSITION: return close_position(&context);
        case INSTRUCTION_LIQUIDATE_PARTIAL: return liquidate_partial(&context);
        case INSTRUCTION_LIQUIDATE_FULL: return liquidate_full(&context);
        case EVENT_TAG: return receive_event(&context);
        default: return fail(ERROR_INSTRUCTION_FALLBACK_NOT_FOUND);
    }
}
