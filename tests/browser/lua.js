/**
 * Checks the scripts that run inside Redis: `node lua.js FILE …`.
 *
 * Redis speaks Lua 5.1 with a few globals of its own, and refuses a script that touches another global only when
 * it gets there. So a name that is misspelt, or a `local` that is forgotten, must be found here.
 */

import { readFileSync } from "node:fs";
import luaparse from "luaparse";

const REDIS = ["KEYS", "ARGV", "redis", "cjson", "cmsgpack", "bit", "struct"];
const LUA = ["string", "table", "math", "assert", "error", "ipairs", "next", "pairs", "pcall", "select"];
const KNOWN = new Set([...REDIS, ...LUA, "tonumber", "tostring", "type", "unpack"]);

/** @param {string} file */
function faults(file) {
  const found = [];
  const options = { luaVersion: "5.1", scope: true, locations: true, encodingMode: "x-user-defined" };
  try {
    const chunk = luaparse.parse(readFileSync(file, "latin1"), options);
    for (const { name, loc } of chunk.globals) {
      if (!KNOWN.has(name)) found.push(`${file}:${loc.start.line}: unknown global ${name}`);
    }
  } catch (error) {
    found.push(`${file}: ${error.message}`);
  }
  return found;
}

const found = process.argv.slice(2).flatMap(faults);
for (const fault of found) console.error(fault);
process.exitCode = found.length ? 1 : 0;
