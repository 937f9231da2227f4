/*
 * Margin arithmetic: what a position is worth at a price, whether it is below its maintenance margin, and what a
 * liquidation takes from it.
 *
 * Sizes are 1e-6 of the base asset, prices 1e-6 USDT per whole base asset, money 1e-6 USDT, margins basis points.
 * Everything rounds down, negative numbers too. Functions return false where a value does not fit its type.
 */
#pragma once
#include "wide.h"

#define UNIT 1000000ULL /* of size and of price: size * price / UNIT is money */
#define BPS 10000ULL
#define NOTIONAL_MIN 1000000ULL /* one USDT: below it no position is opened, nor left */
#define LEVERAGE_MAX 1000
#define I64_MAX 0x7fffffffffffffffULL

/* Zero is not negative. */
typedef struct {
    u128 magnitude;
    bool is_negative;
} Signed;

typedef struct {
    bool is_long;
    u64 size;
    u64 collateral;
    u64 entry_price;
    u64 maintenance_bps;
} Exposure;

/* A position at a price: N, pnl(size), and E = collateral + pnl. */
typedef struct {
    u128 notional;
    Signed pnl;
    Signed equity;
} Valuation;

/* What a liquidation does. `to_fund` + `reward` + `unlocked` + `collateral_left` is the collateral before. */
typedef struct {
    u64 closed, size_left, collateral_left;
    u64 reward, to_fund, unlocked;
    u64 bad_debt;
    i64 margin_before, margin_after;
} Settlement;

/* -- signed numbers ----------------------------------------------------------------------------------------------- */

INLINE void set_sign(Signed *value, bool is_negative) {
    value->is_negative = is_negative && (value->magnitude.high | value->magnitude.low);
}

INLINE Signed signed_u64(u64 value) { return (Signed){{0, value}, false}; }

NOINLINE bool add_signed(const Signed *left, const Signed *right, Signed *sum) {
    Signed a = *left, b = *right; /* the sum may be written over one of them */
    if (a.is_negative == b.is_negative) {
        if (!add_wide(a.magnitude, b.magnitude, &sum->magnitude)) return false;
        set_sign(sum, a.is_negative);
        return true;
    }
    bool is_smaller = is_less(a.magnitude, b.magnitude);
    if (is_smaller)
        subtract_wide(b.magnitude, a.magnitude, &sum->magnitude);
    else
        subtract_wide(a.magnitude, b.magnitude, &sum->magnitude);
    set_sign(sum, is_smaller ? b.is_negative : a.is_negative);
    return true;
}

INLINE bool subtract_signed(const Signed *left, const Signed *right, Signed *difference) {
    Signed negated = *right;
    set_sign(&negated, !right->is_negative);
    return add_signed(left, &negated, difference);
}

/* The number as a u64; false where it is negative or larger. */
INLINE bool to_u64(const Signed *value, u64 *result) {
    *result = value->magnitude.low;
    return !value->is_negative && value->magnitude.high == 0;
}

/* The number as an i64; false where it does not fit. */
INLINE bool to_i64(const Signed *value, i64 *result) {
    u64 magnitude = value->magnitude.low;
    *result = (i64)(value->is_negative ? 0 - magnitude : magnitude);
    return value->magnitude.high == 0 && magnitude <= I64_MAX + value->is_negative;
}

/* -- worth -------------------------------------------------------------------------------------------------------- */

/* floor(size * price / UNIT) */
NOINLINE void notional_of(u64 size, u64 price, u128 *notional) {
    u64 remainder;
    u128 product = multiply_u64(size, price);
    divide_by_u64(&product, UNIT, notional, &remainder);
}

/* floor(size * d / UNIT), d the price's way in the position's favour since entry */
NOINLINE void profit_of(const Exposure *position, u64 size, u64 price, Signed *pnl) {
    bool is_up = price > position->entry_price;
    u64 distance = is_up ? price - position->entry_price : position->entry_price - price, remainder;
    u128 product = multiply_u64(size, distance);
    divide_by_u64(&product, UNIT, &pnl->magnitude, &remainder);
    bool is_loss = is_up != position->is_long;
    if (is_loss && remainder) add_wide(pnl->magnitude, (u128){0, 1}, &pnl->magnitude); /* a quotient by UNIT has room */
    set_sign(pnl, is_loss);
}

NOINLINE bool value_at(const Exposure *position, u64 price, Valuation *valuation) {
    notional_of(position->size, price, &valuation->notional);
    profit_of(position, position->size, price, &valuation->pnl);
    Signed collateral = signed_u64(position->collateral);
    return add_signed(&collateral, &valuation->pnl, &valuation->equity);
}

/* E * BPS < m * N */
NOINLINE bool is_below(const Valuation *valuation, u64 margin_bps, bool *below) {
    u128 equity, required;
    *below = true;
    if (valuation->equity.is_negative) return true;
    if (!multiply_wide(&valuation->equity.magnitude, BPS, &equity)) return false;
    if (!multiply_wide(&valuation->notional, margin_bps, &required)) return false;
    *below = is_less(equity, required);
    return true;
}

/* floor(E * BPS / N) within an i64; of no notional it is as far as an i64 goes, or 0 where there is no equity either */
NOINLINE bool margin_of(const Signed *equity, const u128 *notional, i64 *margin_bps) {
    u128 scaled, quotient, remainder;
    if (!multiply_wide(&equity->magnitude, BPS, &scaled)) return false;
    u64 limit = I64_MAX + equity->is_negative;
    if ((notional->high | notional->low) == 0) {
        quotient = (u128){0, equity->magnitude.high | equity->magnitude.low ? limit : 0};
    } else {
        divide_wide(&scaled, notional, &quotient, &remainder);
        if (equity->is_negative && (remainder.high | remainder.low)) add_wide(quotient, (u128){0, 1}, &quotient);
    }
    u64 magnitude = quotient.high || quotient.low > limit ? limit : quotient.low;
    *margin_bps = (i64)(equity->is_negative ? 0 - magnitude : magnitude);
    return true;
}

/* -- opening ------------------------------------------------------------------------------------------------------ */

/* The maintenance margin for the leverage in fact, ceil(N / collateral); 0 where that is above LEVERAGE_MAX. */
NOINLINE u64 maintenance_of(const u128 *notional, u64 collateral) {
    u128 leverage;
    u64 remainder;
    divide_by_u64(notional, collateral, &leverage, &remainder);
    if (leverage.high || leverage.low > LEVERAGE_MAX) return 0;
    u64 rounded_up = leverage.low + (remainder != 0);
    if (rounded_up <= 20) return 250;
    if (rounded_up <= 50) return 100;
    if (rounded_up <= 100) return 50;
    if (rounded_up <= 500) return 10;
    return rounded_up <= LEVERAGE_MAX ? 5 : 0;
}

/* -- liquidation -------------------------------------------------------------------------------------------------- */

INLINE u64 fee_bps(const Exposure *position) { return position->maintenance_bps / 5; }
INLINE u64 target_bps(const Exposure *position) { return position->maintenance_bps * 6 / 5; }

/*
 * The size that a partial liquidation may leave, so that what remains has its target margin; `needs_full` where none
 * can: no equity, nothing left, or less than NOTIONAL_MIN left. For a position below its maintenance margin.
 */
NOINLINE bool plan_partial(const Exposure *position, const Valuation *now, u64 price, u64 *size_left,
                           bool *needs_full) {
    u128 target, equity, x, left;
    u64 remainder;
    *size_left = 0;
    *needs_full = true;
    if (now->equity.is_negative || (now->equity.magnitude.high | now->equity.magnitude.low) == 0) return true;
    if (!multiply_wide(&now->notional, target_bps(position), &target)) return false;
    if (!multiply_wide(&now->equity.magnitude, BPS, &equity)) return false;
    if (!subtract_wide(target, equity, &x)) return false;
    divide_by_u64(&x, position->maintenance_bps, &x, &remainder);
    if (remainder && !add_wide(x, (u128){0, 1}, &x)) return false;
    if (!is_less(x, now->notional)) return true;

    /* The largest size with a notional of at most N - x. */
    subtract_wide(now->notional, x, &left);
    if (!add_wide(left, (u128){0, 1}, &left) || !multiply_wide(&left, UNIT, &left)) return false;
    subtract_wide(left, (u128){0, 1}, &left);
    divide_by_u64(&left, price, &left, &remainder);
    if (left.high || left.low >= position->size) return false;
    *size_left = left.low;
    notional_of(left.low, price, &left);
    *needs_full = is_less(left, (u128){0, NOTIONAL_MIN});
    return true;
}

/* Share loss and fee: half of the fee to the liquidator, all else to the fund; `left` is the collateral after both. */
NOINLINE bool share(u64 collateral, const Signed *loss, const u128 *fee, Settlement *settlement, u64 *left) {
    Signed half = {{fee->high >> 1, fee->high << 63 | fee->low >> 1}, false}, taken = {*fee, false}, rest;
    if (!add_signed(&taken, loss, &taken) || !subtract_signed(&taken, &half, &rest)) return false;
    if (!to_u64(&half, &settlement->reward) || !to_u64(&rest, &settlement->to_fund)) return false;
    rest = signed_u64(collateral);
    return subtract_signed(&rest, &taken, &rest) && to_u64(&rest, left);
}

/* Liquidate `closed`, not above what plan_partial leaves to close. */
NOINLINE bool settle_partial(const Exposure *position, const Valuation *now, u64 price, u64 closed,
                             Settlement *settlement) {
    Exposure after = *position;
    Valuation then;
    Signed loss;
    u128 fee;
    u64 remainder;
    after.size -= closed;
    notional_of(after.size, price, &then.notional);
    profit_of(&after, after.size, price, &then.pnl);
    if (!subtract_signed(&then.pnl, &now->pnl, &loss)) return false;
    if (!subtract_wide(now->notional, then.notional, &fee)) return false;
    if (!multiply_wide(&fee, fee_bps(position), &fee)) return false;
    divide_by_u64(&fee, BPS, &fee, &remainder);
    if (!share(position->collateral, &loss, &fee, settlement, &after.collateral)) return false;
    settlement->closed = closed;
    settlement->size_left = after.size;
    settlement->collateral_left = after.collateral;
    settlement->unlocked = 0;
    settlement->bad_debt = 0;
    return value_at(&after, price, &then) && margin_of(&now->equity, &now->notional, &settlement->margin_before) &&
           margin_of(&then.equity, &then.notional, &settlement->margin_after);
}

/* Liquidate all of it. */
NOINLINE bool settle_full(const Exposure *position, const Valuation *now, Settlement *settlement) {
    Signed loss = now->pnl, collateral = signed_u64(position->collateral), equity = now->equity;
    u128 fee;
    u64 remainder;
    set_sign(&loss, !now->pnl.is_negative);
    if (!loss.is_negative && is_less(collateral.magnitude, loss.magnitude)) loss = collateral;
    if (!multiply_wide(&now->notional, fee_bps(position), &fee)) return false;
    divide_by_u64(&fee, BPS, &fee, &remainder);
    if (equity.is_negative)
        fee = (u128){0, 0};
    else if (is_less(equity.magnitude, fee))
        fee = equity.magnitude;
    if (!share(position->collateral, &loss, &fee, settlement, &settlement->unlocked)) return false;
    settlement->closed = position->size;
    settlement->size_left = 0;
    settlement->collateral_left = 0;
    settlement->bad_debt = 0;
    settlement->margin_after = 0;
    if (equity.is_negative) {
        equity.is_negative = false;
        if (!to_u64(&equity, &settlement->bad_debt)) return false;
    }
    return margin_of(&now->equity, &now->notional, &settlement->margin_before);
}
