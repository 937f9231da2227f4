// What @solana/kit makes of refusals, of a transaction that can no longer land, and of every kind of subscription.
//
// Given what tour-web3.mjs is given, {payer}, a secret key, and {expired_blockhash, expired_height}, it prints
// {errors, notes}: the names of Kit's own errors by what was tried, innermost last, and each kind's first notification.

import * as kit from "@solana/kit";

import { finish, readLife } from "./life.mjs";

const given = await readLife();
const rpc = kit.createSolanaRpc(given.rpc_url);
const rpcSubscriptions = kit.createSolanaRpcSubscriptions_UNSTABLE(given.ws_url);
const sendAndConfirm = kit.sendAndConfirmTransactionFactory({ rpc, rpcSubscriptions });
const payer = await kit.createKeyPairSignerFromBytes(Uint8Array.from(given.payer));
const owner = kit.address(given.owner);
const names = Object.fromEntries(
  Object.entries(kit)
    .filter(([name]) => name.startsWith("SOLANA_ERROR__"))
    .map(([name, code]) => [code, name.slice("SOLANA_ERROR__".length)]),
);

const { value: lifetime } = await rpc.getLatestBlockhash().send();
const unknown = { ...lifetime, blockhash: given.owner };
const expired = { blockhash: given.expired_blockhash, lastValidBlockHeight: BigInt(given.expired_height) };
const sent = await signed(lifetime);
await sendAndConfirm(sent, { commitment: "confirmed" });

const attempts = {
  blockhash_unknown: async () => sendAndConfirm(await signed(unknown), { commitment: "confirmed" }),
  expired: async () => sendAndConfirm(await signed(expired), { commitment: "confirmed", skipPreflight: true }),
  future_block: () => rpc.getBlock(1_000_000n).send(),
  future_context: () => rpc.getAccountInfo(owner, { minContextSlot: 1_000_000n }).send(),
  no_funds: async () => sendAndConfirm(await signed(lifetime, 10n ** 18n), { commitment: "confirmed" }),
  no_signature: async () => wireSent(forged(await signed(lifetime, 2n))),
  sent_again: () => wireSent(sent),
  unknown_method: () => rpc.getNothing().send(),
  wrong_parameter: () => rpc.getBalance("not an address").send(),
};

const seen = { errors: {}, notes: {} };
for (const [name, attempt] of Object.entries(attempts)) {
  try {
    seen.errors[name] = { nothing: await attempt() };
  } catch (error) {
    seen.errors[name] = named(error);
  }
}
const confirmed = { commitment: "confirmed" };
const clock = kit.address("SysvarC1ock11111111111111111111111111111111");
const sysvars = kit.address("Sysvar1111111111111111111111111111111111111");
const subscriptions = {
  account: rpcSubscriptions.accountNotifications(clock, { ...confirmed, encoding: "base64" }),
  block: rpcSubscriptions.blockNotifications("all", { ...confirmed, maxSupportedTransactionVersion: 0 }),
  program: rpcSubscriptions.programNotifications(sysvars, { ...confirmed, encoding: "base64" }),
  root: rpcSubscriptions.rootNotifications(),
  slot: rpcSubscriptions.slotNotifications(),
};
for (const [name, pending] of Object.entries(subscriptions)) seen.notes[name] = await first(pending);
finish(seen);

async function signed(recent, lamports = 1n) {
  // The system program's transfer: a u32 of 2, and the lamports.
  const amount = kit.getU64Encoder().encode(lamports);
  const transfer = {
    programAddress: kit.address("11111111111111111111111111111111"),
    accounts: [
      { address: payer.address, role: kit.AccountRole.WRITABLE_SIGNER, signer: payer },
      { address: owner, role: kit.AccountRole.WRITABLE },
    ],
    data: Uint8Array.from([2, 0, 0, 0, ...amount]),
  };
  return kit.pipe(
    kit.createTransactionMessage({ version: 0 }),
    (empty) => kit.setTransactionMessageFeePayerSigner(payer, empty),
    (paid) => kit.setTransactionMessageLifetimeUsingBlockhash(recent, paid),
    (dated) => kit.appendTransactionMessageInstruction(transfer, dated),
    kit.signTransactionMessageWithSigners,
  );
}

function forged(transaction) {
  return { ...transaction, signatures: { [payer.address]: new Uint8Array(64).fill(1) } };
}

function wireSent(transaction) {
  const wire = kit.getBase64EncodedWireTransaction(transaction);
  return rpc.sendTransaction(wire, { encoding: "base64", preflightCommitment: "confirmed" }).send();
}

/** Return the names of Kit's errors, from the outside in. */
function named(error) {
  const own = kit.isSolanaError(error) ? names[error.context.__code] : String(error);
  return [own, ...(error.cause ? named(error.cause) : [])];
}

async function first(pending) {
  const notifications = await pending.subscribe({ abortSignal: AbortSignal.timeout(10_000) });
  for await (const note of notifications) return note;
}
