// A life through @solana/kit alone: its codecs put together from the IDL, its subscriptions, its errors.

import {
  AccountRole,
  SOLANA_ERROR__INSTRUCTION_ERROR__CUSTOM,
  SOLANA_ERROR__JSON_RPC__SERVER_ERROR_SEND_TRANSACTION_PREFLIGHT_FAILURE,
  addCodecSizePrefix,
  address,
  appendTransactionMessageInstruction,
  createKeyPairSignerFromBytes,
  createSolanaRpc,
  createSolanaRpcSubscriptions,
  createTransactionMessage,
  fetchEncodedAccount,
  getAddressCodec,
  getArrayCodec,
  getBase58Encoder,
  getBase64EncodedWireTransaction,
  getBase64Encoder,
  getBooleanCodec,
  getI64Codec,
  getNullableCodec,
  getSignatureFromTransaction,
  getStructCodec,
  getU16Codec,
  getU32Codec,
  getU64Codec,
  getU8Codec,
  getUtf8Codec,
  isSolanaError,
  pipe,
  sendAndConfirmTransactionFactory,
  setTransactionMessageFeePayerSigner,
  setTransactionMessageLifetimeUsingBlockhash,
  signTransactionMessageWithSigners,
} from "@solana/kit";

import { EVENT_TAG, dataLines, elapse, finish, grown, readLife } from "./life.mjs";

const CODECS = {
  bool: getBooleanCodec(),
  i64: getI64Codec(),
  pubkey: getAddressCodec(),
  string: addCodecSizePrefix(getUtf8Codec(), getU32Codec()),
  u16: getU16Codec(),
  u32: getU32Codec(),
  u64: getU64Codec(),
  u8: getU8Codec(),
};

const life = await readLife();
const rpc = createSolanaRpc(life.rpc_url);
const rpcSubscriptions = createSolanaRpcSubscriptions(life.ws_url);
const sendAndConfirm = sendAndConfirmTransactionFactory({ rpc, rpcSubscriptions });
const programId = address(life.program_id);
const signers = {};
for (const [key, secret] of Object.entries(life.wallets))
  signers[key] = await createKeyPairSignerFromBytes(Uint8Array.from(secret));
const seen = { sent: [], heard: [], confirmed: [], read: [], fetched: [], refused: [], noticed: [] };

const stop = new AbortController();
const listening = listen(
  await rpcSubscriptions
    .logsNotifications({ mentions: [programId] }, { commitment: "confirmed" })
    .subscribe({ abortSignal: stop.signal }),
);

for (const step of life.steps) await take(step);

await grown(seen.heard, life.hears, "events heard");
await grown(seen.noticed, seen.sent.length + seen.refused.length, "transactions heard of");
stop.abort();
await listening;
await finalized(seen.sent.at(-1).signature);
const history = await rpc.getSignaturesForAddress(programId, { commitment: "finalized" }).send();
seen.history = history.map(({ signature, err, slot }) => ({ signature, err: narrow(err), slot: Number(slot) }));
for (const { signature } of history.toReversed()) seen.read.push(...(await eventsOf(signature)));
finish(seen);

async function listen(notifications) {
  for await (const { context, value } of notifications) {
    seen.noticed.push(value.signature);
    if (value.err !== null) continue;
    const slot = Number(context.slot);
    for (const event of dataLines(value.logs).map((line) => decodedEvent(getBase64Encoder().encode(line))))
      if (event !== null) seen.heard.push({ ...event, slot, signature: value.signature });
  }
}

async function take(step) {
  if (step.do === "elapse") return elapse(life, step.seconds);
  if (step.do === "fetch") {
    const account = await fetchEncodedAccount(rpc, address(step.address), { commitment: "confirmed" });
    if (!account.exists || account.programAddress !== programId) throw new Error(`${step.address} is not there`);
    return seen.fetched.push({ account: step.account, values: decoded("accounts", account.data, step.account).values });
  }
  if (step.do === "refuse") return refuse(step);
  const transaction = await signed(step);
  const signature = getSignatureFromTransaction(transaction);
  const told = confirmation(signature, "confirmed");
  await sendAndConfirm(transaction, { commitment: "confirmed" });
  seen.confirmed.push(await told);
  seen.sent.push({ instruction: step.instruction, signature });
}

/** Return what a subscription to the signature tells. */
async function confirmation(signature, commitment) {
  const abortSignal = AbortSignal.timeout(20_000);
  const pending = rpcSubscriptions.signatureNotifications(signature, { commitment });
  const notifications = await pending.subscribe({ abortSignal });
  for await (const { context, value } of notifications)
    return { signature, err: value.err, slot: Number(context.slot) };
  throw new Error(`${signature} was never ${commitment}`);
}

async function finalized(signature) {
  const { err } = await confirmation(signature, "finalized");
  if (err !== null) throw new Error(`${signature}: ${JSON.stringify(err)}`);
}

async function refuse(step) {
  const refusal = { instruction: step.instruction };
  try {
    await sendAndConfirm(await signed(step), { commitment: "confirmed" });
  } catch (error) {
    refusal.is_preflight_error = isSolanaError(
      error,
      SOLANA_ERROR__JSON_RPC__SERVER_ERROR_SEND_TRANSACTION_PREFLIGHT_FAILURE,
    );
    refusal.is_custom_error = isSolanaError(error.cause, SOLANA_ERROR__INSTRUCTION_ERROR__CUSTOM);
    refusal.code = error.cause?.context.code;
    refusal.logs = error.context.logs;
    refusal.units = Number(error.context.unitsConsumed);
  }
  const transaction = await signed(step);
  const wire = getBase64EncodedWireTransaction(transaction);
  const options = { commitment: "confirmed", encoding: "base64", sigVerify: true };
  const { value } = await rpc.simulateTransaction(wire, options).send();
  refusal.simulated = { err: narrow(value.err), logs: value.logs };
  const signature = getSignatureFromTransaction(transaction);
  const told = confirmation(signature, "confirmed");
  try {
    await sendAndConfirm(transaction, { commitment: "confirmed", skipPreflight: true });
  } catch (error) {
    refusal.landed_code = isSolanaError(error, SOLANA_ERROR__INSTRUCTION_ERROR__CUSTOM)
      ? error.context.code
      : (error.cause?.context?.code ?? String(error));
  }
  // Kit gives up as soon as the failure is processed; getTransaction has it when it is confirmed.
  await told;
  const { meta } = await rpc
    .getTransaction(signature, { commitment: "confirmed", encoding: "json", maxSupportedTransactionVersion: 0 })
    .send();
  refusal.landed = { signature, err: narrow(meta.err), logs: meta.logMessages };
  seen.refused.push(refusal);
}

async function signed(step) {
  const { value: lifetime } = await rpc.getLatestBlockhash({ commitment: "confirmed" }).send();
  const { accounts } = life.idl.instructions.find(({ name }) => name === step.instruction);
  const instruction = {
    programAddress: programId,
    accounts: accounts.map(({ name, signer, writable }) => meta(step.accounts[name], signer, writable)),
    data: encoded(step),
  };
  const message = pipe(
    createTransactionMessage({ version: 0 }),
    (empty) => setTransactionMessageFeePayerSigner(signers[life.payer], empty),
    (paid) => setTransactionMessageLifetimeUsingBlockhash(lifetime, paid),
    (dated) => appendTransactionMessageInstruction(instruction, dated),
  );
  return signTransactionMessageWithSigners(message);
}

function meta(key, signer = false, writable = false) {
  if (!signer) return { address: address(key), role: writable ? AccountRole.WRITABLE : AccountRole.READONLY };
  const role = writable ? AccountRole.WRITABLE_SIGNER : AccountRole.READONLY_SIGNER;
  return { address: address(key), role, signer: signers[key] };
}

function encoded(step) {
  const { args, discriminator } = life.idl.instructions.find(({ name }) => name === step.instruction);
  const values = Object.fromEntries(args.map(({ name, type }) => [name, argument(type, step.args[name])]));
  return Uint8Array.from([...discriminator, ...structOf(args).encode(values)]);
}

/** Return a transaction's events of this program, from log lines and from calls of itself. */
async function eventsOf(signature) {
  const { meta, transaction } = await rpc
    .getTransaction(signature, { encoding: "json", maxSupportedTransactionVersion: 0 })
    .send();
  if (meta.err !== null) return [];
  const loaded = meta.loadedAddresses ?? { readonly: [], writable: [] };
  const keys = [...transaction.message.accountKeys, ...loaded.writable, ...loaded.readonly];
  const called = meta.innerInstructions
    .flatMap(({ instructions }) => instructions)
    .filter(({ programIdIndex }) => keys[programIdIndex] === programId)
    .map(({ data }) => getBase58Encoder().encode(data))
    .filter((data) => EVENT_TAG.equals(data.subarray(0, 8)))
    .map((data) => data.subarray(8));
  const logged = dataLines(meta.logMessages).map((line) => getBase64Encoder().encode(line));
  return [...logged, ...called]
    .map(decodedEvent)
    .filter((event) => event !== null)
    .map((event) => ({ ...event, signature }));
}

function decodedEvent(payload) {
  return decoded("events", payload);
}

/** Return name and fields of an account or an event, null where the IDL knows no such discriminator. */
function decoded(kind, payload, expected) {
  const known = life.idl[kind].find(({ discriminator }) => discriminator.every((byte, i) => byte === payload[i]));
  if (expected !== undefined && known?.name !== expected) throw new Error(`${expected} expected, not ${known?.name}`);
  return known ? { name: known.name, values: definedCodec(known.name).decode(payload.subarray(8)) } : null;
}

function definedCodec(name) {
  return structOf(life.idl.types.find((type) => type.name === name).type.fields);
}

function structOf(fields) {
  return getStructCodec(fields.map(({ name, type }) => [name, codecOf(type)]));
}

function codecOf(type) {
  if (type.vec) return getArrayCodec(codecOf(type.vec));
  if (type.array) return getArrayCodec(codecOf(type.array[0]), { size: type.array[1] });
  if (type.option) return getNullableCodec(codecOf(type.option));
  if (type.defined) return definedCodec(type.defined.name);
  if (!CODECS[type]) throw new Error(`no codec for ${JSON.stringify(type)}`);
  return CODECS[type];
}

/** Return an error with numbers where Kit, which does not know it to be small, has bigints. */
function narrow(err) {
  return JSON.parse(JSON.stringify(err, (_, value) => (typeof value === "bigint" ? Number(value) : value)));
}

/** Return a JSON value as the codec of that type wants it. */
function argument(type, value) {
  if (type.vec) return value.map((item) => argument(type.vec, item));
  return /^[ui]64$/.test(type) ? BigInt(value) : value;
}
