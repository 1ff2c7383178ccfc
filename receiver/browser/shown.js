/**
 * What this browser has shown: shared by all its tabs, and kept when they are closed.
 *
 * Every tab is connected and receives every event. Before an event is shown it is claimed here, so that one
 * tab shows it. Because each tab receives a channel's events in order and without holes, one place a channel
 * says it all: everything up to there was shown.
 *
 * The claim is ONE IndexedDB transaction: read the place, show, write the place. The obvious alternative, a
 * place in localStorage guarded by a Web Lock, does not hold: a write to localStorage reaches the other
 * tabs' processes later than the release of the lock does. Measured in Chromium 156, two tabs claiming the same
 * 300 events at the same moments: 48 were shown twice; with transactions, none. They also need no secure
 * context. What would change our mind: a lock that orders localStorage writes.
 *
 * The races, one by one:
 * - Two tabs receive one event in the same millisecond. Transactions that write to a store run one after the other,
 *   across processes; the second finds the place taken.
 * - A tab dies before it has shown. Its transaction is rolled back, the next tab's shows. One that never began
 *   leaves the place where it was; the event comes again with the next connection.
 * - A tab dies after it has shown and before the commit. The event is shown again. Of the two possible mistakes in
 *   these milliseconds we take this one: an alert twice, not never.
 * - A tab is frozen within its claim. Browsers do not freeze, or abort, a transaction that others wait for;
 *   should one hang all the same, the claim is decided from memory after `STORAGE_MS`.
 * - Storage is refused, full or broken. Memory and the word of the other tabs decide; two tabs that show in the
 *   same few milliseconds can then both do it.
 *
 * @typedef {import("./cursors.js").Place} Place
 * @typedef {import("./cursors.js").Places} Places
 */

import { advance, formatCursor, formatCursors, parseCursors, reaches } from "./cursors.js";

const NAME = "orderbell"; // of the database and of the BroadcastChannel
const STORE = "shown";
const STORAGE_MS = 3_000; // then go on without; some WebKit versions never answer an open()
const FAILURES = 2; // in a row; then this page goes on without storage

export class Shown {
  /** What this tab knows to be shown, by any tab or device. @type {Places} */
  #known = new Map();
  /** @type {Promise<IDBDatabase> | null} */
  #database = null;
  #failures = 0;
  #key;
  #indexedDB;
  #tabs;

  /**
   * @param {string} key  separates customers who share a browser
   * @param {object} options
   * @param {IDBFactory | null} options.indexedDB
   * @param {((name: string) => BroadcastChannel) | null} options.broadcastChannel
   * @param {(channel: string, place: Place) => void} options.ontab  another tab has shown everything up to there
   */
  constructor(key, { indexedDB, broadcastChannel, ontab }) {
    this.#key = key;
    this.#indexedDB = indexedDB;
    this.#tabs = broadcastChannel?.(`${NAME}/${key}`) ?? null;
    this.#tabs?.addEventListener("message", ({ data }) => {
      for (const [channel, place] of parseCursors(data)) {
        advance(this.#known, channel, place);
        ontab(channel, place);
      }
    });
  }

  /** Where to go on after everything that this browser has shown. */
  async places() {
    /** @type {Places} */
    let places = new Map();
    await this.#update((stored) => {
      places = new Map(stored);
      return false;
    });
    return places;
  }

  /**
   * Calls `show` unless the event at this place was shown before, by any tab or device.
   *
   * `show` may not wait: it runs inside the transaction.
   *
   * @param {string} channel @param {Place} place @param {() => void} show
   * @returns {Promise<boolean>} whether this tab showed it; it is remembered by then
   */
  async claim(channel, place, show) {
    let shown = false;
    await this.#update((stored) => {
      if (reaches(stored.get(channel), place)) return false;
      // Known but not stored: another device has shown it, or another tab that could not store it.
      if (!reaches(this.#known.get(channel), place)) {
        show();
        shown = true;
        // Before the commit: should it fail, the second run of this function must not show again.
        advance(this.#known, channel, place);
        this.#tabs?.postMessage(formatCursor(channel, place));
      }
      stored.set(channel, place);
      return true;
    });
    return shown;
  }

  /** Goes on after a place at which there is nothing to show. @param {string} channel @param {Place} place */
  async pass(channel, place) {
    await this.#update((stored) => {
      if (reaches(stored.get(channel), place)) return false;
      stored.set(channel, place);
      return true;
    });
  }

  /** Another device has shown everything up to there. @param {string} channel @param {Place} place */
  seen(channel, place) {
    advance(this.#known, channel, place);
  }

  /** Whether it is known here that the event was shown. @param {string} channel @param {Place} place */
  knows(channel, place) {
    return reaches(this.#known.get(channel), place);
  }

  /**
   * Remembers where a first connection starts, so that what happens before the next visit is shown then; and
   * forgets channels that this customer may no longer read.
   *
   * @param {Places} start
   */
  async start(start) {
    await this.#update((stored) => {
      const missing = [...start].filter(([channel]) => !stored.has(channel));
      const others = [...stored.keys()].filter((channel) => !start.has(channel));
      for (const [channel, place] of missing) stored.set(channel, place);
      for (const channel of others) stored.delete(channel);
      return missing.length + others.length > 0;
    });
  }

  /**
   * Goes on at `place`, because the server can't honour `refused`.
   *
   * That may be backwards (a restored database). Another tab may have been reset before this one and
   * have shown events since: what it has shown stays shown.
   *
   * @param {string} channel @param {Place | undefined} refused @param {Place} place
   */
  async reset(channel, refused, place) {
    await this.#update((stored) => {
      const current = stored.get(channel);
      const backwards = refused && !reaches(place, refused);
      const wasReset = current && reaches(current, place) && !(backwards && reaches(current, refused));
      const after = wasReset ? current : place;
      this.#known.set(channel, after);
      stored.set(channel, after);
      return true;
    });
  }

  close() {
    this.#tabs?.close();
    this.#tabs = null; // a transaction may still be on its way
    this.#database?.then(
      (database) => database.close(),
      () => {}, // it was never open
    );
    this.#database = null;
  }

  /**
   * Runs `change` on the stored places, alone among all tabs; without storage, on what this tab knows.
   *
   * When the storage fails late, `change` runs twice.
   *
   * @param {(places: Places) => boolean} change  whether the places are to be stored
   */
  async #update(change) {
    if (this.#indexedDB && this.#failures < FAILURES) {
      try {
        await within(STORAGE_MS, this.#transact(this.#indexedDB, change));
        this.#failures = 0;
        return;
      } catch (error) {
        this.#failures += 1;
        this.#database = null; // WebKit loses connections to its storage; the next one opens anew
        console.warn("orderbell: going on without storage", error);
      }
    }
    change(this.#known);
  }

  /** @param {IDBFactory} indexedDB @param {(places: Places) => boolean} change @returns {Promise<void>} */
  async #transact(indexedDB, change) {
    this.#database ??= open(indexedDB);
    const database = await this.#database;
    await new Promise((resolve, reject) => {
      const transaction = database.transaction(STORE, "readwrite");
      transaction.oncomplete = () => resolve(undefined);
      transaction.onabort = () => reject(transaction.error);
      const store = transaction.objectStore(STORE);
      const reading = store.get(this.#key);
      reading.onsuccess = () => {
        const places = parsePlaces(reading.result);
        if (!change(places)) return;
        store.put(formatCursors(places), this.#key);
        // In this very task: a reload in the milliseconds before the commit comes by itself would undo the
        // transaction, and what has been shown be shown again.
        transaction.commit();
      };
    });
  }
}

/** @param {IDBFactory} indexedDB @returns {Promise<IDBDatabase>} */
function open(indexedDB) {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open(NAME, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
    opening.onsuccess = () => resolve(opening.result);
    opening.onerror = () => reject(opening.error);
  });
}

/** @param {unknown} stored */
function parsePlaces(stored) {
  try {
    return parseCursors(typeof stored === "string" ? stored : "");
  } catch {
    return new Map(); // somebody wrote into our database: as if nothing had been there
  }
}

/**
 * @template T
 * @param {number} ms  of being awake @param {Promise<T>} promise @returns {Promise<T>}
 */
function within(ms, promise) {
  return new Promise((resolve, reject) => {
    let began = Date.now();
    let timer = setTimeout(expire, ms);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));

    function expire() {
      if (Date.now() - began < 2 * ms) {
        reject(new Error(`no answer within ${ms} ms`));
      } else {
        // The tab was frozen meanwhile, and the answer may be queued right behind this timer.
        began = Date.now();
        timer = setTimeout(expire, ms);
      }
    }
  });
}
