/**
 * Why no connection opens, or why less is promised, and what to change; loaded only then.
 *
 * @typedef {"unreachable" | "origin" | "policy" | "storage"} Kind
 */

const REACH_MS = 5_000;

/** By the URL of the gateway. @type {Readonly<Record<Kind, (url: URL) => string>>} */
export const HINTS = {
  unreachable: ({ host }) => `no answer from ${host}. Is this the gateway's address? Trying again.`,
  origin: ({ host }) =>
    `${host} answers, but no connection opens. If this page's origin is not the gateway's own, add` +
    ` ${globalThis.location?.origin} to ORDERBELL_ALLOWED_ORIGINS there; a proxy in between has to pass on` +
    " WebSocket upgrades. Trying again.",
  policy: ({ origin }) =>
    // A policy knows WebSockets as an origin of their own.
    `this page's Content-Security-Policy forbids it: add ${origin} ${origin.replace(/^http/, "ws")} to connect-src.`,
  storage: () =>
    "this browser keeps nothing for this page (are cookies or site data blocked?). Alerts still pop up; but after a" +
    " reload, or in a second tab, one may be shown again.",
};

/** @param {URL} url @param {typeof globalThis.fetch} fetch @returns {Promise<"unreachable" | "origin">} */
export async function diagnose(url, fetch) {
  try {
    // An opaque answer is one: it says that somebody is there, and asks for no permission.
    const { href } = new URL("livez", url);
    await fetch(href, { mode: "no-cors", cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(REACH_MS) });
    return "origin";
  } catch {
    return "unreachable";
  }
}
