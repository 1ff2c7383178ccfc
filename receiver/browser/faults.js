/**
 * What is wrong with a set-up, said once: as an "error" event, and in one line on the console that says what to change.
 *
 * @typedef {"token" | "refused" | "forbidden" | "unreachable" | "origin" | "policy" | "storage" | "customer" | "behind"} Kind
 * @typedef {{ kind: Kind, message: string, cause?: unknown }} Fault
 */

const REACH_MS = 5_000;

export class Faults {
  /** @type {Set<Kind>} */
  #said = new Set();
  #report;

  /** @param {(fault: Fault) => void} report */
  constructor(report) {
    this.#report = report;
  }

  /** @param {Kind} kind @param {string} message @param {unknown} [cause] */
  say(kind, message, cause) {
    this.#report({ kind, message, cause });
    if (this.#said.has(kind)) return;
    this.#said.add(kind);
    console.warn(`orderbell: ${message}`, ...(cause === undefined ? [] : [cause]));
  }

  /** It works now; should it fail again, that is news. @param {Kind[]} kinds */
  over(...kinds) {
    for (const kind of kinds) this.#said.delete(kind);
  }
}

/**
 * Why no connection was ever opened. A browser says nothing but 1006, whoever refused it.
 *
 * @param {URL} url @param {typeof globalThis.fetch} fetch @param {string} origin  of the page
 * @returns {Promise<{ kind: Kind, message: string }>}
 */
export async function diagnose(url, fetch, origin) {
  const { href, host } = new URL("livez", url);
  try {
    // An opaque answer is one: it says that somebody is there, and asks for no permission.
    await fetch(href, { mode: "no-cors", cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(REACH_MS) });
  } catch {
    return { kind: "unreachable", message: `no answer from ${host}. Is this the gateway's address? Trying again.` };
  }
  return {
    kind: "origin",
    message:
      `${host} answers, but no connection comes about. If this page's origin is not the gateway's own, add ${origin} to` +
      " ORDERBELL_ALLOWED_ORIGINS there; a proxy between has to pass WebSocket upgrades on. Trying again.",
  };
}

/** @param {SecurityPolicyViolationEvent} violation @param {URL} url */
export function isOurViolation({ effectiveDirective, blockedURI }, url) {
  return effectiveDirective === "connect-src" && blockedURI.replace(/^ws/, "http").startsWith(url.origin);
}
