/**
 * Where an alert leads: `data.link`, and up to two `data.actions`, each with a `label` and either a `url` or an `event`
 * for the page. Loaded with the first event that has any.
 *
 * A caller that may send events must not be able to lead people just anywhere: an address must be of the page's own
 * origin, or of one that the page has named. Any other is left out.
 *
 * @typedef {{ label: string, url: string, event: string }} Action  one of url and event is ""
 */

const MOST = 2;
const LOOKED_AT = 10; // of those that were sent, some may lead elsewhere
const LABEL = 40; // characters
const LONGEST = 2_000; // of an address

let warned = false;

/** @param {unknown} url @param {readonly string[]} origins  beside the page's own @returns {string} "" if it is none */
export function safe(url, origins) {
  if (typeof url !== "string" || url.length > LONGEST) return "";
  try {
    const { href, protocol, origin, username, password } = new URL(url, location.href);
    const allowed = origin === location.origin || origins.includes(origin);
    if (allowed && /^https?:$/.test(protocol) && !username && !password) return href;
  } catch {
    // not an address
  }
  if (!warned) console.warn("orderbell: a link that leads elsewhere is left out; `origins` of Toasts allows others:", url.slice(0, 80));
  warned = true;
  return "";
}

/** @param {unknown} actions @param {readonly string[]} origins @returns {Action[]} */
export function actionsOf(actions, origins) {
  if (!Array.isArray(actions)) return [];
  const found = [];
  for (const action of actions.slice(0, LOOKED_AT)) {
    if (found.length === MOST) break;
    const { label, url, event } = Object(action);
    const name = shorten(label);
    const href = safe(url, origins);
    const own = typeof event === "string" && !href ? event.slice(0, 100) : "";
    if (name && (href || own)) found.push({ label: name, url: href, event: own });
  }
  return found;
}

/** @param {unknown} label */
function shorten(label) {
  const characters = typeof label === "string" ? [...label.trim().slice(0, 3 * LABEL)] : [];
  return characters.slice(0, LABEL).join("") + (characters.length > LABEL ? " …" : "");
}

/**
 * @param {string} url @param {string} text @param {() => void} followed  just before this page may go
 */
export function anchor(url, text, followed) {
  const made = document.createElement("a");
  made.className = "orderbell-toast-link";
  made.href = url;
  made.textContent = text;
  made.addEventListener("click", followed);
  return made;
}

/**
 * @param {readonly Action[]} actions
 * @param {() => void} followed  a link, just before this page may go
 * @param {(event: string) => void} chosen  what the page has to do
 */
export function buttons(actions, followed, chosen) {
  const row = document.createElement("div");
  row.className = "orderbell-toast-actions";
  for (const { label, url, event } of actions) {
    const action = url ? anchor(url, label, followed) : document.createElement("button");
    action.className = "orderbell-toast-action";
    row.append(action);
    if (!(action instanceof HTMLButtonElement)) continue;
    action.type = "button";
    action.textContent = label;
    action.addEventListener("click", () => chosen(event));
  }
  return row;
}
