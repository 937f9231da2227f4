// What the scripts share: the life that they live, from standard input, and what they saw, as JSON on standard output.
//
// A life is {rpc_url, ws_url, program_id, idl, payer, wallets, steps, hears}. A step is one of
//   {do: "send", instruction, args, accounts, signers}     it must succeed
//   {do: "refuse", ...the same}                            the program must refuse it
//   {do: "fetch", account, address}                        read an account by the IDL
//   {do: "elapse", seconds}                                let the chain's clock go on
// `args` and `accounts` are objects by the IDL's names, integers decimal strings, keys base58; `signers` are public
// keys whose secrets are in `wallets`; `hears` is the number of events that a listener has to wait for.

import { setTimeout as sleep } from "node:timers/promises";

const HEARD_WITHIN_MS = 20_000;

/** Return the life that is on standard input. */
export async function readLife() {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  return JSON.parse(Buffer.concat(chunks).toString("utf8"));
}

/** Print what was seen, and end: open sockets must not keep a finished script alive. */
export function finish(seen) {
  process.stdout.write(JSON.stringify(plain(seen)), () => process.exit(0));
}

/** Return a decoded value as JSON has it: 64-bit integers as decimal strings, keys as base58, names in snake_case. */
export function plain(value) {
  if (typeof value === "bigint") return value.toString();
  if (value === null || value === undefined) return null;
  if (typeof value !== "object") return value;
  if (typeof value.toBase58 === "function") return value.toBase58();
  if (value.constructor?.name === "BN") return value.toString();
  if (Array.isArray(value) || value instanceof Uint8Array) return Array.from(value, plain);
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [snake(name), plain(inner)]));
}

/** Return camelCase as snake_case; a name that is neither, such as a type's, stays as it is. */
export function snake(name) {
  return /^[a-z]/.test(name) ? name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`) : name;
}

/** Return snake_case as camelCase. */
export function camel(name) {
  return name.replace(/_([a-z0-9])/g, (_, letter) => letter.toUpperCase());
}

/** Let the chain's clock go on by so many seconds; a method that only the tests' chain has. */
export async function elapse(life, seconds) {
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tests_elapse", params: [seconds] });
  const headers = { "content-type": "application/json" };
  const answer = await (await fetch(life.rpc_url, { method: "POST", headers, body })).json();
  if (answer.error) throw new Error(JSON.stringify(answer.error));
}

/** Wait until `list` holds at least `count` entries, or fail with what is there. */
export async function grown(list, count, what) {
  const until = Date.now() + HEARD_WITHIN_MS;
  while (list.length < count) {
    if (Date.now() > until) throw new Error(`${what}: ${list.length} of ${count}: ${JSON.stringify(plain(list))}`);
    await sleep(20);
  }
}

/** Return the base64 of the `Program data:` lines. */
export function dataLines(logs) {
  const prefix = "Program data: ";
  return logs.filter((line) => line.startsWith(prefix)).map((line) => line.slice(prefix.length));
}

/** What every event instruction of a program that emits by calling itself begins with. */
export const EVENT_TAG = Buffer.from("e445a52e51cb9a1d", "hex");
