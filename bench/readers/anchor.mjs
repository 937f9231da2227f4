// @coral-xyz/anchor's EventParser over bodies in a file, and its BorshAccountsCoder over accounts, timed here so that
// no other process's work is counted.
//
//     node anchor.mjs PACKAGES BODIES IDL...
//
// Reads commands from standard input, answers each with a line of JSON: "logs" parses lines that are in memory,
// "bodies" reads the file, parses its JSON and then the lines, "accounts" decodes those that "load IDL ACCOUNT BYTES
// FILE" has put into memory, each of so many bytes, "found FILE" writes what the last of them found.

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [packages, bodies, ...files] = process.argv.slice(2);
const { BorshAccountsCoder, BorshCoder, EventParser, web3, BN } = createRequire(`${packages}/package.json`)("@coral-xyz/anchor");
const { version } = createRequire(`${packages}/package.json`)("@coral-xyz/anchor/package.json");

const programs = files.map((file) => {
  const idl = JSON.parse(readFileSync(file, "utf8"));
  return { id: idl.address, name: idl.metadata.name, parser: makeParser(idl) };
});
const inMemory = [];
for (const [place, body] of parsedBodies()) {
  if (body.meta.err !== null) continue;
  // A parser reads one program: only those run whose program takes part.
  const called = programs.filter(({ id }) => body.meta.logMessages.some((line) => line.startsWith(`Program ${id} `)));
  inMemory.push([place, called, body.meta.logMessages]);
}

let found = [];
let accounts = { datas: [] };
const commands = { logs: readLogs, bodies: readBodies, accounts: readAccounts };
console.log(JSON.stringify({ version, node: process.version }));
for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...words] = line.split(" ");
  if (command === "load" || command === "found") {
    (command === "load" ? load : writeFound)(...words);
    console.log("{}");
    continue;
  }
  found = [];
  const started = process.hrtime.bigint();
  const startedCpu = process.cpuUsage();
  commands[command]();
  const wall_s = Number(process.hrtime.bigint() - started) / 1e9;
  const { user, system } = process.cpuUsage(startedCpu);
  console.log(JSON.stringify({ wall_s, cpu_s: (user + system) / 1e6 }));
}

function makeParser(idl) {
  return new EventParser(new web3.PublicKey(idl.address), new BorshCoder(idl));
}

function readLogs() {
  for (const [place, called, lines] of inMemory) {
    for (const { name, parser } of called) for (const event of parser.parseLogs(lines)) found.push([place, name, event]);
  }
}

function readBodies() {
  for (const [place, { meta, transaction }] of parsedBodies()) {
    if (meta.err !== null) continue;
    for (const { id, name, parser } of programs) {
      if (!transaction.message.accountKeys.includes(id)) continue;
      for (const event of parser.parseLogs(meta.logMessages)) found.push([place, name, event]);
    }
  }
}

function load(idl, name, size, file) {
  const coder = new BorshAccountsCoder(JSON.parse(readFileSync(idl, "utf8")));
  const bytes = readFileSync(file);
  const datas = Array.from({ length: bytes.length / size }, (_, n) => bytes.subarray(n * size, (n + 1) * size));
  accounts = { coder, name, datas };
}

function readAccounts() {
  const { coder, name, datas } = accounts;
  found = datas.map((data) => coder.decode(name, data));
}

function writeFound(file) {
  writeFileSync(file, found.map(Array.isArray(found[0]) ? canonical : fields).join(""));
}

/** One body at a time: all of them in one string are more than a string can be. */
function* parsedBodies() {
  const bytes = readFileSync(bodies);
  let place = 0;
  for (let start = 0, end; (end = bytes.indexOf(10, start)) !== -1; start = end + 1)
    yield [place++, JSON.parse(bytes.toString("utf8", start, end))];
}

function canonical([place, program, { name, data }]) {
  return `${JSON.stringify([place, program, [name, ...Object.values(data).map(text)].join("|")])}\n`;
}

function fields(account) {
  return `${JSON.stringify(Object.values(account).map(text))}\n`;
}

function text(value) {
  if (value instanceof web3.PublicKey) return Buffer.from(value.toBytes()).toString("hex");
  if (BN.isBN(value)) return value.toString(10);
  return Array.isArray(value) ? Buffer.from(value).toString("hex") : String(value);
}
