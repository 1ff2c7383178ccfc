/**
 * The browser client as one small file: `node bundle.js` writes receiver/browser/bundle, `--check` compares.
 *
 * The files are committed, so that neither a gateway nor `make run` needs Node. What is imported only when it is needed
 * stays beside them, as it is.
 */

import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { brotliCompressSync, brotliDecompressSync, constants, gzipSync } from "node:zlib";
import { build } from "esbuild";
import { minify } from "terser";

const CLIENT = new URL("../../receiver/browser/", import.meta.url);
const BUNDLE = new URL("bundle/", CLIENT);

/**
 * Members that only the bundled files know, and none of another page, version or file: they get short names. Names that
 * are stored, sent between tabs or given to a file that is loaded later are none of these.
 */
const INTERNAL = [
  ...["ANSWER_MS", "asks", "begin", "heard", "isTooLong"], // silence.js
  ...["does", "leastMs", "lived", "spreadMs"], // returning.js
  ...["broke", "failed", "works"], // ways.js
  ...["explain", "over", "say"], // faults.js
  ...["claim", "confirm", "extentOf", "freeze", "knows", "onfault", "onfree", "ontab", "pass", "places", "release"], // shown.js
  ...["renew", "taken", "thaw"],
  ...["caughtUp", "controller", "drop", "due", "elsewhere", "giveBack", "isOver", "missed", "offer", "pump"], // offers.js
  ...["retire", "settled", "since", "tries"],
  ...["askForToken", "byeMs", "checkSilence", "ending", "greeted", "reconnecting", "waits"], // line.js
  ...["adopt", "flush", "owns", "placeOf", "stays"], // resume.js, reports.js, customer.js
  ...["countOf", "forbidden", "isVisible", "look", "tick", "unhide"], // listeners.js, page.js
  ...["forget", "remaining", "settle", "showing", "shownAt", "stale", "visibleSince", "watch"], // alert.js, toast.js
];

const read = (/** @type {string} */ name) => readFileSync(new URL(name, CLIENT));
const { version } = JSON.parse(read("package.json").toString());
const banner = `/* Orderbell ${version}, MIT */\n`;

/** Imported with `import("./…")`. @type {import("esbuild").Plugin} */
const later = {
  name: "later",
  setup: ({ onResolve }) => onResolve({ filter: /./ }, ({ kind, path }) => (kind === "dynamic-import" ? { path, external: true } : undefined)),
};

async function script() {
  const { outputFiles, metafile } = await build({
    absWorkingDir: CLIENT.pathname,
    entryPoints: ["orderbell.js"],
    bundle: true,
    format: "esm",
    target: "es2022",
    minify: true, // terser makes less of what this has made than of the sources
    mangleProps: new RegExp(`^(${INTERNAL.join("|")})$`),
    plugins: [later],
    metafile: true,
    write: false,
  });
  const sources = Object.keys(metafile.inputs);
  checkInternal(sources);
  const { code } = await minify(outputFiles[0].text, {
    module: true,
    ecma: 2020,
    compress: { passes: 5, unsafe_arrows: true, pure_getters: true, keep_fargs: false },
  });
  return { text: banner + code, sources };
}

/** A short name would not be known in a file that is loaded later. @param {string[]} sources */
function checkInternal(sources) {
  const names = readdirSync(CLIENT, { recursive: true }).map(String);
  const others = names.filter((name) => /^(transports\/)?[^/]+\.js$/.test(name) && !sources.includes(name));
  for (const name of others) {
    const used = new RegExp(`(?:\\.|[{,] *)(${INTERNAL.join("|")})\\b(?! *from)`).exec(read(name).toString().replaceAll(/\/\*.*?\*\//gs, ""));
    if (used) throw new Error(`${name} uses ${used[1]}, which bundle.js shortens`);
  }
}

async function style() {
  const { outputFiles } = await build({
    absWorkingDir: CLIENT.pathname,
    entryPoints: ["toast.css"],
    bundle: true,
    external: ["*.svg"],
    minify: true,
    write: false,
  });
  return { text: banner + outputFiles[0].text, sources: ["toast.css"] };
}

/** @param {Buffer} text */
function compress(text) {
  const params = { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: text.length };
  return brotliCompressSync(text, { params });
}

/** By which a gateway recognises that a file was made from the sources that it has. @param {string[]} sources */
function digest(sources) {
  const hash = createHash("sha256");
  for (const name of sources) hash.update(`${name}\0`).update(read(name)).update("\0");
  return hash.digest("hex");
}

/** @param {string} name @returns {Buffer | null} */
function built(name) {
  try {
    return readFileSync(new URL(name, BUNDLE));
  } catch {
    return null;
  }
}

const checks = process.argv.includes("--check");
/** @type {Record<string, object>} */
const files = {};
const stale = [];
mkdirSync(BUNDLE, { recursive: true });
for (const [name, make] of Object.entries({ "orderbell.js": script, "toast.css": style })) {
  const { text: made, sources } = await make();
  const text = Buffer.from(made);
  const short = createHash("sha256").update(text).digest("hex").slice(0, 12);
  const integrity = `sha384-${createHash("sha384").update(text).digest("base64")}`;
  sources.sort();
  files[name] = { name: name.replace(".", `-${version}-${short}.`), integrity, sources, digest: digest(sources) };
  const packed = built(`${name}.br`);
  // Other versions of Node may compress otherwise; what matters is what comes out.
  const same = packed && brotliDecompressSync(packed).equals(text) && built(name)?.equals(text);
  if (!same) stale.push(name);
  if (!same && !checks) {
    writeFileSync(new URL(name, BUNDLE), text);
    writeFileSync(new URL(`${name}.br`, BUNDLE), compress(text));
  }
  if (!checks) console.log(`${name}: ${text.length} bytes, gzip ${gzipSync(text, { level: 9 }).length}, brotli ${compress(text).length}`);
}
const list = `${JSON.stringify({ version, files }, null, 2)}\n`;
if (built("bundle.json")?.toString() !== list) stale.push("bundle.json");
if (!checks) {
  writeFileSync(new URL("bundle.json", BUNDLE), list);
} else if (stale.length > 0) {
  console.error(`receiver/browser/bundle: ${stale.join(", ")}: not made from these sources; run make client`);
  process.exitCode = 1;
}
