/**
 * Our own texts in other languages: `new Toasts({ texts: LANGUAGES.de })`. Not a part of orderbell.js: a page imports it.
 *
 * To change some, or to add messages: `{ ...LANGUAGES.de, messages: { "order.ready": "Bestellung {order} ist fertig" } }`.
 *
 * @typedef {import("./words.js").Texts} Texts
 */

/** @type {Texts} */
const de = {
  lang: "de",
  label: "Benachrichtigungen",
  close: "Schließen",
  summary: (count) => `${count} neue Meldungen`,
  untitled: "Neuigkeit",
  severities: { info: "", success: "", warning: "Warnung", critical: "Dringend" },
  messages: {},
};

/** @type {Texts} */
const he = {
  lang: "he",
  label: "התראות",
  close: "סגירה",
  summary: (count) => `${count} התראות חדשות`,
  untitled: "עדכון",
  severities: { info: "", success: "", warning: "אזהרה", critical: "דחוף" },
  messages: {},
};

/** @type {Readonly<Record<"de" | "he", Texts>>} */
export const LANGUAGES = { de, he };
