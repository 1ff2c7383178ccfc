/**
 * What an event says to a person, whatever it holds.
 *
 * @typedef {import("./orderbell.js").CloudEvent} CloudEvent
 */

export const LONGEST_TEXT = 500; // characters; a message may be as long as its sender likes, the page's list has it all

/**
 * Its message; else what its type and its subject say: "Menu changed: lentil" for `menu.changed` of `lentil`.
 *
 * @param {{ type?: unknown, subject?: unknown, data?: any } | null | undefined} event  whatever was sent as one
 */
export function textOf(event) {
  const message = event?.data?.message;
  if (typeof message === "string" && message.trim() !== "") return message;
  const words = wordsOf(event?.type);
  const subject = typeof event?.subject === "string" ? event.subject.trim() : "";
  return [words || (subject ? "" : "News"), subject].filter(Boolean).join(": ");
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
