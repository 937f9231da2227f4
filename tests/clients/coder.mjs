// What Anchor's own coder makes of bytes: read, and written again from what was read.

import { createRequire } from "node:module";

import { readLife } from "./life.mjs";

const require = createRequire(import.meta.url);
const given = await readLife();
const { BN, BorshCoder } = require(given.package);
// 0.29 renames by this; the names are renamed here as there, not by a rule of our own.
const camelCase = createRequire(require.resolve(given.package))("camelcase");

function attempt(coder, { part, name, data }) {
  try {
    const { found, value, written } = read[part](coder, name, Buffer.from(data, "hex"));
    return { found, value: plain(value), data: written.toString("hex") };
  } catch (error) {
    return { error: String(error.message ?? error).slice(0, 200) };
  }
}

const read = {
  accounts(coder, name, data) {
    const value = coder.accounts.decode(name, data);
    return { found: name, value, written: write(coder.accounts.accountLayouts.get(name), value, data) };
  },
  events(coder, _, data) {
    const { name, data: value } = coder.events.decode(data.toString("base64"));
    return { found: name, value, written: write(coder.events.layouts.get(name), value, data) };
  },
  instructions(coder, _, data) {
    const { name, data: value } = coder.instruction.decode(data);
    if (data.length <= 1000) return { found: name, value, written: coder.instruction.encode(name, value) };
    const layouts = coder.instruction.ixLayouts ?? coder.instruction.ixLayout;
    return { found: name, value, written: write(layouts.get(name) ?? layouts.get(camelCase(name)), value, data) };
  },
};

/** Write by the coder's own layout: what it offers to the outside has room for a thousand bytes, or does not write. */
function write(entry, value, data) {
  const { layout, discriminator } = entry.layout ? entry : { layout: entry, discriminator: { length: 8 } };
  const out = Buffer.alloc(data.length + 64);
  return Buffer.concat([data.subarray(0, discriminator.length), out.subarray(0, layout.encode(value, out))]);
}

function plain(value) {
  if (value === null || typeof value === "boolean" || typeof value === "string") return value;
  if (typeof value === "number") return Number.isFinite(value) ? value : String(value);
  if (BN.isBN(value)) return value.toString(10);
  if (typeof value.toBase58 === "function") return value.toBase58();
  if (value instanceof Uint8Array) return Buffer.from(value).toString("hex");
  if (Array.isArray(value)) return value.map(plain);
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)]));
}

function answer() {
  const names = Object.fromEntries(given.names.map((name) => [name, camelCase(name)]));
  try {
    const coder = new BorshCoder(given.idl);
    return { names, results: given.vectors.map((vector) => attempt(coder, vector)) };
  } catch (error) {
    return { names, refused: String(error.message ?? error) };
  }
}

process.stdout.write(JSON.stringify(answer()));
