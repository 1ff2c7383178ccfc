/**
 * The list of alerts that stays, where the pop-ups go away. It is kept for the next visit, and every tab has it whole.
 *
 * @typedef {object} Alert
 * @property {string} cursor
 * @property {string} [id]  of its event, as its source and channel; what an earlier version kept has none
 * @property {string} [source]
 * @property {string} [channel]
 * @property {string} text
 * @property {string} subject
 * @property {unknown} item
 * @property {string} time
 * @property {By} by  who has shown it
 *
 * @typedef {"" | "here" | "tab" | "device" | "before"} By  before: on an earlier visit, by this browser
 */

import { isReplaced, textOf } from "../orderbell.js";
import { element, make, picture, time } from "../elements.js";
import { pictureOf } from "./menu.js";

const MOST = 50;
const LONG = 240; // characters
const KEEP_MS = 200; // a thousand at once are written down once
/** @type {Record<By, string>} */
const SHOWN = {
  "": "",
  here: "Popped up in this tab",
  tab: "Popped up in another tab",
  device: "Popped up on another device",
  before: "Popped up before",
};

export class Alerts {
  /** The newest first, as they are listed. @type {Alert[]} */
  #alerts = [];
  /** By cursor. @type {Map<string, HTMLElement>} */
  #rows = new Map();
  /** @type {number | undefined} */
  #keeping;
  #kept;
  #list = element("alerts");

  /** @param {string} customer */
  constructor(customer) {
    this.#kept = `orderbell-shop/alerts/${customer}`;
    for (const alert of this.#load()) this.#insert({ ...alert, by: alert.by === "here" ? "before" : alert.by });
    this.#trim();
    addEventListener("pagehide", this.#keep);
  }

  /** @param {string} cursor @param {import("../orderbell.js").CloudEvent} event @param {By} [by] @param {string} [name] */
  add(cursor, event, by = "", name = "new") {
    if (this.#rows.has(cursor)) return;
    this.remove(this.#alerts.filter((alert) => replaces(event, alert)).map((alert) => alert.cursor));
    const { id, source, channel, subject = "", time: moment = "" } = event;
    const { item } = Object(event.data);
    this.#insert({ cursor, id, source, channel, text: textOf(event), subject, item, time: moment, by }, name);
    this.#trim();
    this.#keepSoon();
  }

  /** @param {string} cursor @param {By} by @param {{ epoch: number, seq: number }} [first]  of several, which end with that one */
  shown(cursor, by, first) {
    const [channel, place] = parts(cursor);
    for (const alert of this.#alerts) {
      const [ofChannel, ofPlace] = parts(alert.cursor);
      const among = first && ofChannel === channel && ofPlace < place && ofPlace >= first.epoch * 2 ** 40 + first.seq && alert.by === "";
      if ((alert.cursor !== cursor && !among) || alert.by === by) continue;
      alert.by = by;
      const whose = this.#rows.get(alert.cursor)?.querySelector(".whose");
      if (whose) whose.textContent = SHOWN[by];
    }
    this.#keepSoon();
  }

  /**
   * What the server has: the list is there again after a reload, and what was read or seen elsewhere says so.
   *
   * @param {readonly import("../alerts.js").ListedAlert[]} listed
   */
  take(listed) {
    for (const { cursor, state, event } of listed) {
      if (state === "retracted" || state === "expired") this.remove([cursor]);
      else this.add(cursor, event, state === "unseen" ? "" : "before", "");
      this.#rows.get(cursor)?.toggleAttribute("data-read", state === "read");
    }
  }

  /** They were taken back, or their time is over. @param {readonly string[]} cursors */
  remove(cursors) {
    for (const cursor of cursors) {
      this.#alerts = this.#alerts.filter((alert) => alert.cursor !== cursor);
      this.#rows.get(cursor)?.remove();
      this.#rows.delete(cursor);
    }
    this.#trim();
    this.#keepSoon();
  }

  /** @param {string | null} upTo @param {readonly string[]} alone */
  read(upTo, alone) {
    const [channel, last] = parts(upTo ?? "");
    for (const [cursor, shown] of this.#rows) {
      const [of, place] = parts(cursor);
      if (alone.includes(cursor) || (of === channel && place <= last)) shown.setAttribute("data-read", "");
    }
  }

  /** Somebody signs out: nothing stays for the one who comes next. */
  forget() {
    clearTimeout(this.#keeping);
    removeEventListener("pagehide", this.#keep);
    this.#alerts = [];
    this.#rows.clear();
    this.#list.replaceChildren();
    try {
      localStorage.removeItem(this.#kept);
    } catch {
      // Site data is blocked: nothing was kept.
    }
  }

  /** @param {Alert} alert @param {string} [name] */
  #insert(alert, name = "") {
    const at = this.#alerts.findIndex((other) => other.time <= alert.time);
    const next = at < 0 ? null : (this.#rows.get(this.#alerts[at].cursor) ?? null);
    this.#alerts.splice(at < 0 ? this.#alerts.length : at, 0, alert);
    const shown = row(alert, name);
    this.#rows.set(alert.cursor, shown);
    this.#list.insertBefore(shown, next);
  }

  #trim() {
    for (const { cursor } of this.#alerts.splice(MOST)) {
      this.#rows.get(cursor)?.remove();
      this.#rows.delete(cursor);
    }
    element("alerts-empty").hidden = this.#alerts.length > 0;
  }

  /** @returns {Alert[]} */
  #load() {
    try {
      const kept = JSON.parse(localStorage.getItem(this.#kept) ?? "[]");
      return Array.isArray(kept) ? kept.filter((alert) => typeof alert?.cursor === "string") : [];
    } catch {
      return []; // Site data is blocked, or not ours: the list then lasts as long as the page.
    }
  }

  #keepSoon() {
    clearTimeout(this.#keeping);
    this.#keeping = window.setTimeout(this.#keep, KEEP_MS);
  }

  #keep = () => {
    try {
      localStorage.setItem(this.#kept, JSON.stringify(this.#alerts));
    } catch {
      // as above; or it is full
    }
  };
}

/** @param {string} cursor @returns {[channel: string, place: number]}  what follows is greater */
function parts(cursor) {
  const [channel, place = ""] = cursor.split("=");
  const [epoch, seq] = place.split(".").map(Number);
  return [channel, epoch * 2 ** 40 + seq];
}

/** @param {import("../orderbell.js").CloudEvent} event @param {Alert} alert */
function replaces(event, { id, source, subject, channel, cursor }) {
  if (!id || !source) return false;
  const [[, before], [, place]] = [parts(cursor), parts(`${event.channel}=${event.epoch}.${event.seq}`)];
  return before < place && isReplaced({ id, source, subject, channel }, event);
}

/** @param {Alert} alert @param {string} name */
function row({ cursor, text, subject, item, time: moment, by }, name) {
  const what = beginningOf(typeof item === "string" ? item : subject && `Order ${subject}`);
  const about = make("span", "about", ...(what ? [what, " · "] : []), time(moment || null));
  const words = make("div", "", ...said(text), about, make("span", "about whose", SHOWN[by]));
  const shown = make("li", name, picture(pictureOf(item), 40), words);
  shown.dataset.cursor = cursor;
  return shown;
}

/** A row says how a long text begins, and opens to the whole of it. @param {string} text */
function said(text) {
  const beginning = make("strong", "", beginningOf(text));
  beginning.dir = "auto";
  if (text.length <= LONG) return [beginning];
  const whole = make("p", "", text);
  whole.dir = "auto";
  whole.tabIndex = 0; // it scrolls, also by the keyboard
  return [beginning, make("details", "long", make("summary", "", "All of it"), whole)];
}

/** @param {string} text */
function beginningOf(text) {
  return text.length > LONG ? `${text.slice(0, LONG).replace(/[\uD800-\uDBFF]$/, "")}…` : text;
}
