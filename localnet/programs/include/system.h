/*
 * Lamports and the life of an account: clock, rent, transfers, creation at a PDA, closing.
 */
#pragma once
#include "anchor.h"
#include "wide.h"

/* The system program's instructions, by their u32 tag. */
enum { SYSTEM_CREATE_ACCOUNT = 0, SYSTEM_ASSIGN = 1, SYSTEM_TRANSFER = 2, SYSTEM_ALLOCATE = 8 };

typedef struct PACKED {
    u32 tag;
    u64 lamports;
    u64 space;
    Pubkey owner;
} SystemCreateAccount;

typedef struct PACKED {
    u32 tag;
    Pubkey owner;
} SystemAssign;

/* Transfer and Allocate look alike: lamports to send, or bytes to allocate. */
typedef struct PACKED {
    u32 tag;
    u64 amount;
} SystemAmount;

/* The cluster's clock, unix seconds. The local one of whoever sends decides nothing. */
INLINE i64 unix_timestamp(void) {
    Clock clock;
    sol_get_clock_sysvar(&clock);
    return clock.unix_timestamp;
}

/* What an account of `space` bytes must hold to live for ever, in lamports; U64_MAX where that is no number. */
NOINLINE u64 rent_exempt_minimum(u64 space) {
    Rent rent;
    sol_get_rent_sysvar(&rent);
    /* The threshold is a double, and there is no floating point here: mantissa * 2^-shift, from its bits. */
    u64 exponent = rent.exemption_threshold >> 52;
    u64 mantissa = (rent.exemption_threshold & ((1ULL << 52) - 1)) | 1ULL << 52;
    u64 shift = 1075 - exponent; /* wraps for a threshold that is negative or above 2^53: refused with the tiny ones */
    u64 minimum, per_year;
    u128 bytes_price = multiply_u64(space + 128, rent.lamports_per_byte_year);
    if (!shift_right_to_u64(bytes_price, 0, &per_year) || shift >= 128) return U64_MAX;
    return shift_right_to_u64(multiply_u64(per_year, mantissa), shift, &minimum) ? minimum : U64_MAX;
}

/* What the account holds above its rent-exempt minimum, in lamports. */
INLINE u64 lamports_above_rent(const AccountInfo *account) {
    u64 minimum = rent_exempt_minimum(data_len(account));
    return *account->lamports > minimum ? *account->lamports - minimum : 0;
}

/* Take lamports from an account this program owns. The two may be the same account. False where it does not fit. */
INLINE bool move_lamports(AccountInfo *from, AccountInfo *to, u64 lamports) {
    u64 left, sum;
    if (__builtin_sub_overflow(*from->lamports, lamports, &left)) return false;
    *from->lamports = left;
    if (__builtin_add_overflow(*to->lamports, lamports, &sum)) return false;
    *to->lamports = sum;
    return true;
}

/* One call of the system program with `count` of the two metas; `seeds` (NULL: none) signs for a PDA. */
INLINE u64 invoke_system(const Context *context, const AccountMeta *metas, u64 count, const Slice *data,
                         const Slice *seeds) {
    Instruction instruction = {&SYSTEM_PROGRAM, metas, count, data->start, data->len};
    return invoke(context, &instruction, seeds);
}

/* Transfer lamports from a wallet that signed. */
NOINLINE u64 transfer_lamports(const Context *context, u64 from, u64 to, u64 lamports) {
    AccountMeta metas[] = {{context->accounts[from].key, true, true}, {context->accounts[to].key, true, false}};
    SystemAmount transfer = {SYSTEM_TRANSFER, lamports};
    Slice data = {&transfer, sizeof transfer};
    return invoke_system(context, metas, 2, &data, NULL);
}

/*
 * Create a PDA of `space` bytes, owned by this program, rent paid by `payer`. `seeds` signs for it.
 *
 * CreateAccount refuses an address that holds lamports, and anybody may send some to a PDA to block it. So such an
 * address is topped up, allocated and assigned instead. An account in use fails in the system program with custom 0.
 */
NOINLINE u64 create_pda(const Context *context, u64 payer, u64 account, u64 space, const Slice *seeds) {
    const AccountInfo *info = &context->accounts[account];
    AccountMeta metas[] = {{context->accounts[payer].key, true, true}, {info->key, true, true}};
    u64 minimum = rent_exempt_minimum(space);
    if (*info->lamports == 0) {
        SystemCreateAccount create = {SYSTEM_CREATE_ACCOUNT, minimum, space, *context->program_id};
        Slice data = {&create, sizeof create};
        return invoke_system(context, metas, 2, &data, seeds);
    }
    if (*info->lamports < minimum) TRY(transfer_lamports(context, payer, account, minimum - *info->lamports));
    SystemAmount allocate = {SYSTEM_ALLOCATE, space};
    Slice data = {&allocate, sizeof allocate};
    TRY(invoke_system(context, &metas[1], 1, &data, seeds));
    SystemAssign assign = {SYSTEM_ASSIGN, *context->program_id};
    data = (Slice){&assign, sizeof assign};
    return invoke_system(context, &metas[1], 1, &data, seeds);
}

/* Close an account as Anchor does: its lamports to `to`, no data left to read, back to the system program. */
NOINLINE bool close_account(AccountInfo *account, AccountInfo *to) {
    if (!move_lamports(account, to, *account->lamports)) return false;
    sol_memset_(account->data, 0, data_len(account));
    *account->owner = SYSTEM_PROGRAM;
    store_u64(account->data - 8, 0);
    return true;
}
