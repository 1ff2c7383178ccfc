/**
 * What an event says to a person, whatever it holds, and the texts of our own around it.
 *
 * @typedef {import("./orderbell.js").CloudEvent} CloudEvent
 *
 * @typedef {"info" | "success" | "warning" | "critical"} Severity
 *
 * @typedef {string | ((values: Record<string, unknown>) => string)} Message  "Order {order} is ready"
 *
 * @typedef {object} Texts  one language; languages.js has others, and any of them can be overridden
 * @property {string} lang  of all of these
 * @property {string} label  of the region, for screen readers
 * @property {string} close  names the close button
 * @property {(count: number) => string} summary  the title of several that came together
 * @property {string} untitled  the text of what has none
 * @property {Readonly<Record<Severity, string>>} severities  shown before the text; "": nothing
 * @property {Readonly<Record<string, Message>>} messages  by `data.message_key`
 */

export const LONGEST_TEXT = 500; // characters; a message may be as long as its sender likes, the page's list has it all
/** The worst last. @type {readonly Severity[]} */
export const SEVERITIES = ["info", "success", "warning", "critical"];

/** @type {Texts} */
export const ENGLISH = {
  lang: "en",
  label: "Notifications",
  close: "Close",
  summary: (count) => `${count} new alerts`,
  untitled: "News",
  severities: { info: "", success: "", warning: "Warning", critical: "Urgent" },
  messages: {},
};

/**
 * The text of its `message_key`, with its `values`; else its `message`; else what its type and its subject say: "Menu
 * changed: lentil" for `menu.changed` of `lentil`.
 *
 * @param {{ type?: unknown, subject?: unknown, data?: any } | null | undefined} event  whatever was sent as one
 * @param {Readonly<Record<string, Message>>} [messages]  by key
 */
export function textOf(event, messages = {}) {
  const { message, message_key: key, values } = Object(event?.data);
  const known = typeof key === "string" && Object.hasOwn(messages, key) && fill(messages[key], Object(values));
  if (known) return known;
  if (typeof message === "string" && /[^\s\p{Cf}]/u.test(message)) return message; // else there is nothing to see
  const words = wordsOf(event?.type);
  const subject = typeof event?.subject === "string" ? event.subject.trim() : "";
  return [words || (subject ? "" : "News"), subject].filter(Boolean).join(": ");
}

/** @param {Message} message @param {Record<string, unknown>} values */
function fill(message, values) {
  try {
    if (typeof message === "function") return shorten(message(values));
  } catch {
    return ""; // it expected other values
  }
  return String(message).replaceAll(/\{(\w+)\}/g, (_, name) => (Object.hasOwn(values, name) && among(shorten(values[name], 80))) || "…");
}

/** A value within a text: what runs from right to left turns round nothing but itself. @param {string} value */
function among(value) {
  const plain = value.replaceAll(/[\u202a-\u202e\u2066-\u2069]/g, "");
  return /[\u0590-\u08ff\u200e\u200f\ufb1d-\ufefc]/.test(plain) ? `\u2068${plain}\u2069` : plain;
}

/** @param {{ data?: any } | null | undefined} event @returns {Severity} */
export function severityOf(event) {
  const severity = Object(event?.data).severity;
  return SEVERITIES.includes(severity) ? severity : "info";
}

/** @param {unknown} type */
function wordsOf(type) {
  if (typeof type !== "string") return "";
  // Types are often names turned round, with a version at the end: com.example.order.completed.v1
  const parts = type.split(/[./:]+/).filter((part) => part !== "" && !/^v?\d+$/.test(part));
  const words = parts.slice(-2).join(" ").replaceAll(/[_-]+/g, " ").trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** @param {unknown} text  whatever should have been one */
export function shorten(text, longest = LONGEST_TEXT) {
  const all = typeof text === "string" ? text.trim() : typeof text === "number" ? String(text) : "";
  const characters = [...all.slice(0, 2 * longest + 2)]; // whole ones: half a pair of surrogates is none
  return characters.length > longest ? `${characters.slice(0, longest).join("")} …` : all;
}
