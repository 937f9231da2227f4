/*
 * Prices from Pyth's PriceUpdateV2 accounts, checked before they are believed.
 *
 * A check that fails ends the instruction with its reason; there is no price without all of them. A program that
 * includes this has the errors named here in its IDL.
 */
#pragma once
#include "system.h"
#include "wide.h"

#define PRICE_UPDATE_DISCRIMINATOR 0xcdf47e9d6323f122ULL
#define PUBLISH_AHEAD_S_MAX 10 /* how far publishers' clocks may be ahead of the cluster's, which may lag */
#define EXPONENT_MIN (-12)
#define PRICE_DECIMALS 6

enum { VERIFICATION_PARTIAL = 0, VERIFICATION_FULL = 1 };

/* rec5EKMGg6MxZYaMdyBfgwp4d5rB9T1VQH5pJv5LtFJ, Pyth's receiver program */
static const Pubkey PYTH_RECEIVER = {{
     12, 183, 250, 187,  82, 247, 166,  72, 187,  91,  49, 125, 154,   1, 139, 144,
     87, 203,   2,  71, 116, 250, 254,   1, 230, 196, 223, 152, 204,  56,  88, 129}};

/* With verification Full. Partial carries one byte more, which shifts all that follows. */
typedef struct PACKED {
    u64 discriminator;
    Pubkey write_authority;
    u8 verification;
    u8 feed_id[32];
    i64 price;
    u64 conf;
    i32 exponent;
    i64 publish_time;
    i64 prev_publish_time;
    i64 ema_price;
    u64 ema_conf;
    u64 posted_slot;
    u8 unused;
} PriceUpdate;
_Static_assert(sizeof(PriceUpdate) == 134, "the receiver program's size");

typedef struct {
    const u8 *feed_id;
    i64 max_age;
    u64 max_conf_bps;
} PriceLimits;

/* `price` and `conf` are 1e-6 USDT, rounded down and up; the published ones have an exponent of their own. */
typedef struct {
    u64 price, conf;
    u64 published_price, published_conf;
} OraclePrice;

/* Whether conf / price, exactly, is above `limit` / `scale`. */
INLINE bool is_unsure(const OraclePrice *oracle, u64 limit, u64 scale) {
    return is_less(multiply_u64(oracle->published_price, limit), multiply_u64(oracle->published_conf, scale));
}

/* From the published exponent to PRICE_DECIMALS. False where one does not fit. */
NOINLINE bool scale_price(OraclePrice *oracle, i32 exponent) {
    u64 power = 1;
    i32 shift = exponent + PRICE_DECIMALS;
    for (i32 i = shift < 0 ? -shift : shift; i; i--) power *= 10;
    if (shift < 0) {
        oracle->price = oracle->published_price / power;
        oracle->conf = oracle->published_conf / power + (oracle->published_conf % power != 0);
        return true;
    }
    u128 price = multiply_u64(oracle->published_price, power), conf = multiply_u64(oracle->published_conf, power);
    oracle->price = price.low;
    oracle->conf = conf.low;
    return price.high == 0 && conf.high == 0;
}

/* The price in `account`, or the reason why there is none. */
NOINLINE u64 read_price(const Context *context, u64 account, const PriceLimits *limits, OraclePrice *oracle) {
    const AccountInfo *info = &context->accounts[account];
    const PriceUpdate *update = (const PriceUpdate *)info->data;
    if (!keys_equal(info->owner, &PYTH_RECEIVER)) return fail_account(context, account, ERROR_WRONG_ORACLE_OWNER);
    if (data_len(info) < 8) return fail_account(context, account, ERROR_ACCOUNT_DISCRIMINATOR_NOT_FOUND);
    if (update->discriminator != PRICE_UPDATE_DISCRIMINATOR)
        return fail_account(context, account, ERROR_ACCOUNT_DISCRIMINATOR_MISMATCH);
    if (data_len(info) != sizeof(PriceUpdate) || update->verification > VERIFICATION_FULL)
        return fail_account(context, account, ERROR_ACCOUNT_DID_NOT_DESERIALIZE);
    if (update->verification != VERIFICATION_FULL) return fail_account(context, account, ERROR_PARTIAL_VERIFICATION);
    if (!keys_equal((const Pubkey *)update->feed_id, (const Pubkey *)limits->feed_id))
        return fail_account(context, account, ERROR_WRONG_FEED);
    if (update->price <= 0 || update->exponent < EXPONENT_MIN || update->exponent > 0)
        return fail_account(context, account, ERROR_INVALID_PRICE);

    i64 age, now = unix_timestamp();
    if (__builtin_sub_overflow(now, update->publish_time, &age) || age > limits->max_age || age < -PUBLISH_AHEAD_S_MAX)
        return fail_account(context, account, ERROR_STALE_PRICE);
    oracle->published_price = (u64)update->price;
    oracle->published_conf = update->conf;
    if (is_unsure(oracle, limits->max_conf_bps, 10000)) return fail_account(context, account, ERROR_LOW_CONFIDENCE);
    if (!scale_price(oracle, update->exponent)) return fail(ERROR_MATH_OVERFLOW);
    /* A price that rounds to nothing would make every size worthless. */
    return oracle->price ? 0 : fail_account(context, account, ERROR_INVALID_PRICE);
}
