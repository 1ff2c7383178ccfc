/**
 * What toasts say aloud: two live regions, one that waits until a screen reader has finished, and one that does not.
 *
 * @typedef {import("./toast.js").Entry} Entry
 */

import { make, words } from "./text-elements.js";
import { shorten } from "./words.js";

const MOST = 3; // in one announcement; more become their number
const ANNOUNCE_MS = 150; // a live region filled right after it was made isn't read; and bursts are read as one
const ANNOUNCED_MS = 7_000; // then it is taken out again
const QUIET_MS = [1_000, 2_000, 4_000, 8_000, 16_000, 30_000]; // between announcements, while ever more come
const ANNOUNCED_CHARACTERS = 200;

export class Announcer {
  /** @type {Entry[]} */
  #unannounced = [];
  #announcements = 0; // in a row
  #announcedAt = 0;
  /** @type {number | undefined} */
  #announcing;
  /** @type {number | undefined} */
  #silencing;
  /** @type {number | undefined} */
  #calming;
  #status = make("div", "orderbell-announcer");
  // For what can't wait until somebody has finished listening. Unlike a status, an alert is read when it is put in.
  #alarm = make("div", "orderbell-announcer");
  #texts;

  /** @param {import("./words.js").Texts} texts */
  constructor(texts) {
    this.#texts = texts;
    this.#status.setAttribute("role", "status");
    this.#alarm.setAttribute("role", "alert");
  }

  /** Those that are in the page, or have to be. */
  get regions() {
    return this.#alarm.isConnected ? [this.#status, this.#alarm] : [this.#status];
  }

  /** @param {Entry} entry */
  announce(entry) {
    if (entry.severity === "critical") return this.#alert(entry);
    this.#unannounced.push(entry);
    if (this.#announcing !== undefined) return;
    const since = performance.now() - this.#announcedAt;
    // A person who hears of an order every second can't listen to anything else, so in a stream the pauses grow.
    const pause = QUIET_MS[Math.min(this.#announcements, QUIET_MS.length) - 1] ?? 0;
    if (since > 2 * pause) this.#announcements = 0;
    const wait = Math.max(ANNOUNCE_MS, this.#announcements ? pause - since : 0);
    this.#announcing = window.setTimeout(() => this.#speak(), wait);
  }

  /** It has gone before it was said. @param {Entry} entry */
  withdraw(entry) {
    this.#unannounced = this.#unannounced.filter((other) => other !== entry);
  }

  clear() {
    this.#unannounced = [];
    this.#status.replaceChildren();
    this.#calm();
  }

  remove() {
    for (const timer of [this.#announcing, this.#silencing, this.#calming]) clearTimeout(timer);
    for (const element of this.regions) element.remove();
  }

  /** At once, and over what is being read. @param {Entry} entry */
  #alert(entry) {
    // Many at once would only cut each other off.
    if (this.#alarm.childElementCount < MOST) this.#alarm.append(this.#said(entry));
    if (!this.#alarm.isConnected) this.#status.after(this.#alarm);
    clearTimeout(this.#calming);
    this.#calming = window.setTimeout(() => this.#calm(), ANNOUNCED_MS);
  }

  #calm() {
    this.#alarm.remove();
    this.#alarm.replaceChildren();
  }

  /** @param {Entry} entry */
  #said({ text, lang, severity }) {
    const marked = this.#texts.severities[severity];
    const said = words("p", "", "", "");
    if (marked) said.append(words("span", "", `${marked}: `, this.#texts.lang));
    said.append(words("span", "", shorten(text, ANNOUNCED_CHARACTERS), lang));
    return said;
  }

  #speak() {
    this.#announcing = undefined;
    const entries = this.#unannounced.splice(0);
    if (entries.length === 0) return;
    const said =
      entries.length > MOST
        ? [words("p", "", this.#texts.summary(entries.length), this.#texts.lang)]
        : entries.map((entry) => this.#said(entry));
    this.#status.replaceChildren(...said);
    this.#announcements += 1;
    this.#announcedAt = performance.now();
    clearTimeout(this.#silencing);
    this.#silencing = window.setTimeout(() => this.#status.replaceChildren(), ANNOUNCED_MS);
  }
}
