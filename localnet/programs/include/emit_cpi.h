/*
 * emit_cpi!: events as instructions that a program sends to itself, signed by a PDA that only it can sign for.
 *
 * Logs may be cut, inner instructions are not; that is what the detour is for. Anybody may send the program such an
 * instruction, so the program refuses one that its event authority did not sign, and readers check the same.
 */
#pragma once
#include "anchor.h"
#include "borsh.h"

#define EVENT_TAG 0x1d9acb512ea545e4ULL /* the first eight bytes of sha256("anchor:event"), the last byte first */
#define EVENT_BYTES_MAX 256             /* of a whole event instruction; borsh fails on a longer one */
#define NOT_ENOUGH_ACCOUNT_KEYS (11ULL << 32)

static const char EVENT_AUTHORITY_SEED[] = {'_', '_', 'e', 'v', 'e', 'n', 't', '_', 'a',
                                            'u', 't', 'h', 'o', 'r', 'i', 't', 'y'};

/* Where an instruction lists its event authority, and that address's bump. */
typedef struct {
    u64 authority;
    u8 bump;
} EventSource;

/* An event being written; `writer` stands after the tag and the discriminator. */
typedef struct {
    u8 bytes[EVENT_BYTES_MAX];
    BorshWriter writer;
} EventInstruction;

/* The two accounts that Anchor appends for events: the authority at its address, and this program. */
NOINLINE u64 check_event_source(const Context *context, u64 authority, u64 program, EventSource *source) {
    Slice seeds[2] = {{EVENT_AUTHORITY_SEED, sizeof EVENT_AUTHORITY_SEED}};
    source->authority = authority;
    TRY(find_pda(context, authority, seeds, 1, &source->bump));
    return check_address(context, program, context->program_id);
}

INLINE void begin_event(EventInstruction *event, u64 discriminator) {
    event->writer = (BorshWriter){event->bytes, event->bytes + sizeof event->bytes, false};
    write_u64(&event->writer, EVENT_TAG);
    write_u64(&event->writer, discriminator);
}

/* Send the event. */
NOINLINE u64 emit_cpi(const Context *context, const EventSource *source, const EventInstruction *event) {
    if (event->writer.failed) return fail(ERROR_ACCOUNT_DID_NOT_SERIALIZE);
    AccountMeta meta = {context->accounts[source->authority].key, false, true};
    Slice seeds[] = {{EVENT_AUTHORITY_SEED, sizeof EVENT_AUTHORITY_SEED}, {&source->bump, 1}};
    Slice signer = {seeds, COUNT(seeds)};
    Instruction instruction = {context->program_id, &meta, 1, event->bytes, (u64)(event->writer.at - event->bytes)};
    return invoke(context, &instruction, &signer);
}

/* What the program does when it gets such an instruction: nothing, where the event authority signed. */
NOINLINE u64 receive_event(Context *context) {
    static const AccountSpec specs[] = {{"event_authority", 0, NULL}};
    context->specs = specs;
    if (context->account_count == 0) {
        LOG("ProgramError occurred. Error Code: NotEnoughAccountKeys. Error Number: 47244640256. "
            "Error Message: The instruction expected additional account keys.");
        return NOT_ENOUGH_ACCOUNT_KEYS;
    }
    if (!context->accounts[0].is_signer) return fail_account(context, 0, ERROR_CONSTRAINT_SIGNER);
    Slice seeds[2] = {{EVENT_AUTHORITY_SEED, sizeof EVENT_AUTHORITY_SEED}};
    u8 bump;
    return find_pda(context, 0, seeds, 1, &bump);
}
