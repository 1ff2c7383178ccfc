/**
 * What this browser has shown: shared by all its tabs, and kept when they are closed.
 *
 * Every tab is connected and receives every event. Before a tab shows one it claims it here, so that one tab shows it;
 * once it was on the screen, it is confirmed. What was shown is kept as an extent (extents.js) for each channel.
 *
 * A claim is ONE IndexedDB transaction: read what was shown and claimed, begin to show, write the claim. The obvious
 * alternative, a place in localStorage guarded by a Web Lock, does not hold: a write to localStorage reaches the other
 * tabs' processes later than the release of the lock does. Measured in Chromium 156, two tabs claiming the same
 * 300 events at the same moments: 48 were shown twice; with transactions, none. They also need no secure
 * context. What would change our mind: a lock that orders localStorage writes.
 *
 * The races, one by one:
 * - Two tabs receive one event in the same millisecond. Transactions that write to a store run one after the other,
 *   across processes; the second finds it claimed.
 * - A tab dies before it has shown. Its transaction is rolled back; or its claim runs out after `CLAIM_MS`, because
 *   nobody renews it. A tab that is closed says so, and its claims count no more.
 * - A tab dies after it has shown and before it has confirmed. The event is shown again. Of the two possible mistakes
 *   in this moment we take this one: an alert twice, not never.
 * - A tab is frozen with a claim. It runs out; the tab finds that out with its next renewal and takes the alert off its
 *   screen. Browsers do not freeze, or abort, a transaction that others wait for; should one hang all the same, the
 *   claim is decided from memory after `STORAGE_MS`.
 * - Storage is refused, full or broken. Memory and the word of the other tabs decide; two tabs that show in the
 *   same few milliseconds can then both do it.
 *
 * Two records for each key. One is for the first version of this client, which may be open in another tab during an
 * upgrade: a place for each channel, and up to there it shows nothing. So it says what was shown or claimed last. The
 * other has the extents and the claims, and what the first said when it was written: what it says beyond that was shown
 * by such a tab. The version of the database stays 1.
 *
 * @typedef {import("./cursors.js").Place} Place
 * @typedef {import("./cursors.js").Places} Places
 * @typedef {import("./extents.js").Extent} Extent
 *
 * @typedef {object} Claim
 * @property {string} tab
 * @property {number} until  milliseconds since 1970
 *
 * @typedef {object} State
 * @property {Map<string, Extent>} extents  by channel
 * @property {Map<string, Claim>} claims  by cursor
 * @property {Places} said  to the first version of this client
 *
 * @typedef {{ channel: string, place: Place }} Item  one event
 *
 * What became of an attempt to claim; `taken`: another tab has it, until then at least.
 * @typedef {"shown" | "claimed" | "left" | "before" | { taken: number }} Outcome
 *
 * @typedef {object} Word  between tabs; each part a list of cursors
 * @property {string} tab
 * @property {string[]} [shown]
 * @property {string[]} [claimed]
 * @property {string[]} [free]
 * @property {boolean} [gone]  the tab is closed
 */

import { advance, formatCursor, formatCursors, parseCursors, reaches } from "./cursors.js";
import { covers, extentUpTo, include, includes, parseRanges, unite } from "./extents.js";

const NAME = "orderbell"; // of the database and of the BroadcastChannel
const STORE = "shown";
const STORAGE_MS = 2_000; // then go on without; a frozen tab may hold up an open(), some WebKit versions never answer one
const FAILURES = 2; // in a row; then this page goes on without storage
const RANGES = 500; // kept of one channel; those beyond would be shown again, in the worst case
export const CLAIM_MS = 5_000; // without a renewal

export class Shown {
  /** What this tab knows. It is all there is where nothing can be stored. @type {State} */
  #known = { extents: new Map(), claims: new Map(), said: new Map() };
  /** Tabs that were closed: their claims count no more. @type {Set<string>} */
  #gone = new Set();
  /** @type {Promise<IDBDatabase> | null} */
  #database = null;
  #failures = 0;
  #key;
  #tab;
  #indexedDB;
  #now;
  #channel;
  #onfault;

  /**
   * @param {string} key  separates customers who share a browser
   * @param {object} options
   * @param {string} [options.tab]  its name, one of a kind
   * @param {IDBFactory | null} options.indexedDB
   * @param {((name: string) => BroadcastChannel) | null} options.broadcastChannel
   * @param {() => number} [options.now]
   * @param {(item: Item) => void} options.ontab  another tab has shown it
   * @param {() => void} [options.onfree]  another tab has left something to be shown
   * @param {(error: unknown) => void} [options.onfault]  it goes on without storage, or without the other tabs' word
   */
  constructor(
    key,
    { tab = "", indexedDB, broadcastChannel, now = Date.now, ontab, onfree, onfault = () => {} },
  ) {
    this.#key = key;
    this.#tab = tab || String(Math.random());
    this.#indexedDB = indexedDB;
    this.#now = now;
    this.#onfault = onfault;
    try {
      this.#channel = broadcastChannel?.(`${NAME}/shown/${key}`) ?? null;
    } catch (error) {
      this.#channel = null; // Firefox with cookies blocked
      onfault(error);
    }
    this.#channel?.addEventListener("message", (event) => {
      const word = /** @type {Word} */ (event.data);
      for (const item of itemsOf(word.shown)) {
        add(this.#known, item);
        this.#known.claims.delete(cursorOf(item));
        ontab(item);
      }
      for (const cursor of word.claimed ?? []) {
        this.#known.claims.set(cursor, { tab: word.tab, until: this.#now() + CLAIM_MS });
      }
      for (const cursor of word.free ?? []) this.#known.claims.delete(cursor);
      if (word.gone) this.#gone.add(word.tab);
      if (word.gone || word.free) onfree?.();
    });
  }

  /** Where to go on after everything that this browser has shown. @returns {Promise<Places>} */
  async places() {
    /** @type {Places} */
    let places = new Map();
    await this.#update((state) => {
      places = placesOf(state);
      return false;
    });
    return places;
  }

  /**
   * Calls `show` of each that was not shown before, by any tab or device, and that no other tab has claimed.
   *
   * `show` may not wait: it runs inside the transaction. It says whether that was all ("shown"), whether it is on its
   * way to the screen ("claimed": to be confirmed, renewed or released), or whether nothing came of it ("left").
   *
   * @template {Item & { show: () => "shown" | "claimed" | "left" }} T
   * @param {readonly T[]} items
   * @returns {Promise<Map<T, Outcome>>} "before": it was shown already, by another
   */
  async claim(items) {
    /** @type {Map<T, Outcome>} */
    const outcomes = new Map();
    await this.#update((state) => {
      let changed = false;
      for (const item of items) {
        // Should the storage fail late, all this runs once more; nothing may be shown twice by it.
        const outcome = outcomes.get(item) ?? this.#claimOne(state, item);
        outcomes.set(item, outcome);
        if (outcome === "shown" || outcome === "before") changed = add(state, item) || changed;
        if (outcome !== "claimed") continue;
        state.claims.set(cursorOf(item), { tab: this.#tab, until: this.#now() + CLAIM_MS });
        changed = true;
      }
      return changed;
    });
    const all = [...outcomes];
    const shown = all.filter(([, outcome]) => outcome === "shown").map(([item]) => item);
    for (const item of shown) add(this.#known, item);
    this.#say({
      shown: shown.map(cursorOf),
      claimed: all.filter(([, outcome]) => outcome === "claimed").map(([item]) => cursorOf(item)),
    });
    return outcomes;
  }

  /**
   * @param {State} state @param {Item & { show: () => "shown" | "claimed" | "left" }} item
   * @returns {Outcome}
   */
  #claimOne(state, item) {
    if (includes(state.extents.get(item.channel), item.place) || this.knows(item.channel, item.place)) return "before";
    const claim = this.#othersClaim(state, cursorOf(item));
    return claim ? { taken: claim.until } : item.show();
  }

  /** @param {State} state @param {string} cursor */
  #othersClaim(state, cursor) {
    const claim = state.claims.get(cursor) ?? this.#known.claims.get(cursor);
    if (!claim || claim.tab === this.#tab || this.#gone.has(claim.tab)) return null;
    const left = claim.until - this.#now();
    return left > 0 && left <= CLAIM_MS ? claim : null; // more: the clock was put back
  }

  /**
   * They were on the screen. @param {readonly Item[]} items
   * @returns {Promise<Item[]>} those of them that another tab has shown too
   */
  async confirm(items) {
    /** @type {Set<Item>} */
    let others = new Set();
    await this.#update((state) => {
      others = new Set(items.filter((item) => includes(state.extents.get(item.channel), item.place)));
      for (const item of items) {
        add(state, item);
        state.claims.delete(cursorOf(item));
      }
      return true;
    });
    for (const item of items) add(this.#known, item);
    this.#say({ shown: items.map(cursorOf) });
    return [...others];
  }

  /**
   * Claims of this tab go on. @param {readonly Item[]} items
   * @returns {Promise<Item[]>} those that it has lost: this tab was frozen, and another one has them
   */
  async renew(items) {
    /** @type {Item[]} */
    let lost = [];
    await this.#update((state) => {
      lost = items.filter(
        (item) => includes(state.extents.get(item.channel), item.place) || this.#othersClaim(state, cursorOf(item)),
      );
      const until = this.#now() + CLAIM_MS;
      for (const item of items) {
        if (!lost.includes(item)) state.claims.set(cursorOf(item), { tab: this.#tab, until });
      }
      return true;
    });
    this.#say({ claimed: items.filter((item) => !lost.includes(item)).map(cursorOf) });
    return lost;
  }

  /** They were not on the screen, and are left to others. @param {readonly Item[]} items */
  async release(items) {
    if (items.length === 0) return;
    await this.#update((state) => {
      for (const item of items) {
        if (state.claims.get(cursorOf(item))?.tab === this.#tab) state.claims.delete(cursorOf(item));
      }
      return true;
    });
    this.#say({ free: items.map(cursorOf) });
  }

  /** There is nothing to show at this place. @param {Item} item */
  async pass(item) {
    await this.#update((state) => add(state, item));
  }

  /** Other devices have shown these. @param {string} channel @param {Extent} extent */
  async seen(channel, extent) {
    addAll(this.#known, channel, extent);
    await this.#update((state) => addAll(state, channel, extent));
  }

  /** What is known to be shown. @param {string} channel @returns {Readonly<Extent> | undefined} */
  extentOf(channel) {
    return this.#known.extents.get(channel);
  }

  /** Whether it is known here that the event was shown. @param {string} channel @param {Place} place */
  knows(channel, place) {
    return includes(this.#known.extents.get(channel), place);
  }

  /**
   * Remembers where a first connection starts, so that what happens before the next visit is shown then; and
   * forgets channels that this customer may no longer read.
   *
   * @param {Places} start
   */
  async start(start) {
    const begin = (/** @type {State} */ state) => {
      const { extents } = state;
      const missing = [...start].filter(([channel]) => !extents.has(channel));
      const others = [...extents.keys()].filter((channel) => !start.has(channel));
      for (const [channel, place] of missing) extents.set(channel, extentUpTo(place));
      for (const channel of others) forget(state, channel);
      return missing.length + others.length > 0;
    };
    begin(this.#known);
    await this.#update(begin);
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
    await this.#update((state) => {
      const extent = state.extents.get(channel);
      if (extent && refused && refused.epoch === place.epoch && refused.seq <= place.seq) {
        // Forward: what lies between can't be had. What waits here to be shown, before it, still can be.
        include(extent, place.epoch, refused.seq + 1, place.seq);
        this.#known.extents.set(channel, structuredClone(extent));
        return true;
      }
      const backwards = refused && !reaches(place, refused);
      const wasReset =
        extent && reaches(extent.upTo, place) && !(backwards && refused && reaches(extent.upTo, refused));
      if (!wasReset) {
        forget(state, channel);
        state.extents.set(channel, extentUpTo(place));
      }
      const after = state.extents.get(channel);
      if (after) this.#known.extents.set(channel, structuredClone(after));
      return true;
    });
  }

  /** The page may go any moment: another one must neither wait for its transactions nor for its claims. */
  freeze() {
    this.#say({ gone: true });
    this.#closeDatabase();
  }

  /** Ends it; `freeze` can be thawed, this can't. */
  close() {
    this.freeze();
    this.#channel?.close();
    this.#channel = null; // a transaction may still be on its way
  }

  /** After `freeze`. The tab takes a new name: others hold its old one for gone. @param {string} tab */
  thaw(tab) {
    this.#tab = tab;
  }

  #closeDatabase() {
    this.#database?.then(
      (database) => database.close(),
      () => {}, // it was never open
    );
    this.#database = null;
  }

  /** @param {Omit<Word, "tab">} word */
  #say(word) {
    const parts = Object.entries(word).filter(([, part]) => !Array.isArray(part) || part.length > 0);
    if (parts.length === 0) return;
    try {
      this.#channel?.postMessage({ ...Object.fromEntries(parts), tab: this.#tab });
    } catch (error) {
      this.#onfault(error); // what the others don't hear they read in the storage
    }
  }

  /**
   * Runs `change` on what is stored, alone among all tabs; without storage, on what this tab knows.
   *
   * When the storage fails late, `change` runs twice.
   *
   * @param {(state: State) => boolean} change  whether the state is to be stored
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
        this.#onfault(error);
      }
    }
    change(this.#known);
  }

  /** @param {IDBFactory} indexedDB @param {(state: State) => boolean} change @returns {Promise<void>} */
  async #transact(indexedDB, change) {
    this.#database ??= this.#open(indexedDB);
    const database = await this.#database;
    await new Promise((resolve, reject) => {
      const transaction = database.transaction(STORE, "readwrite");
      transaction.oncomplete = () => resolve(undefined);
      transaction.onabort = () => reject(transaction.error);
      const store = transaction.objectStore(STORE);
      const places = store.get(this.#key);
      const rest = store.get([this.#key]); // an array is not a string, so it can't be a customer's key
      rest.onsuccess = () => {
        const state = parseState(places.result, rest.result);
        const changed = change(state);
        for (const [channel, extent] of state.extents) addAll(this.#known, channel, extent);
        if (!changed) return;
        sayAll(state);
        store.put(formatCursors(state.said), this.#key);
        store.put(formatRest(state, this.#now()), [this.#key]);
        // In this very task: a reload in the milliseconds before the commit comes by itself would undo the
        // transaction, and what has been shown be shown again.
        transaction.commit();
      };
    });
  }

  /** @param {IDBFactory} indexedDB @returns {Promise<IDBDatabase>} */
  #open(indexedDB) {
    return new Promise((resolve, reject) => {
      const opening = indexedDB.open(NAME, 1);
      opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
      opening.onerror = () => reject(opening.error);
      opening.onsuccess = () => {
        const database = opening.result;
        // A later version of this client, in another tab, may need another version: don't be in its way.
        database.onversionchange = () => this.#closeDatabase();
        database.onclose = () => (this.#database = null);
        resolve(database);
      };
    });
  }
}

/** @param {Item} item */
function cursorOf({ channel, place }) {
  return formatCursor(channel, place);
}

/** @param {unknown} cursors @returns {Item[]} */
function itemsOf(cursors) {
  if (!Array.isArray(cursors)) return [];
  return cursors.flatMap((cursor) => [...parsePlaces(cursor)].map(([channel, place]) => ({ channel, place })));
}

/** @param {State} state @param {Item} item @returns {boolean} whether it is news */
function add({ extents }, { channel, place }) {
  const extent = extents.get(channel);
  if (includes(extent, place)) return false;
  // Where the channel starts here may not be known yet: this one event was shown, nothing is said of those before it.
  const kept = extent ?? extentUpTo({ epoch: place.epoch, seq: 0 });
  include(kept, place.epoch, place.seq);
  extents.set(channel, kept);
  return true;
}

/** @param {State} state @param {string} channel @param {Extent} other @returns {boolean} whether it is news */
function addAll({ extents }, channel, other) {
  const extent = extents.get(channel);
  if (covers(extent, other)) return false;
  if (extent) unite(extent, other);
  else extents.set(channel, structuredClone(other));
  return true;
}

/** @param {State} state @param {string} channel */
function forget({ extents, claims, said }, channel) {
  extents.delete(channel);
  said.delete(channel);
  for (const cursor of claims.keys()) if (cursor.startsWith(`${channel}=`)) claims.delete(cursor);
}

/** @param {State} state @returns {Places} */
function placesOf({ extents }) {
  return new Map([...extents].map(([channel, { upTo }]) => [channel, upTo]));
}

/** What was shown or claimed last: never less than before, or it would seem to be shown by others. @param {State} state */
function sayAll({ extents, claims, said }) {
  for (const [channel, { upTo, beyond }] of extents) {
    advance(said, channel, { epoch: upTo.epoch, seq: beyond[beyond.length - 1]?.[1] ?? upTo.seq });
  }
  for (const cursor of claims.keys()) {
    for (const [channel, place] of parsePlaces(cursor)) if (extents.has(channel)) advance(said, channel, place);
  }
}

/** @param {State} state @param {number} now */
function formatRest(state, now) {
  const { extents, claims, said } = state;
  const beyond = [...extents].filter(([, extent]) => extent.beyond.length > 0);
  return {
    upTo: formatCursors(placesOf(state)),
    said: formatCursors(said),
    beyond: Object.fromEntries(
      beyond.map(([channel, extent]) => [channel, { epoch: extent.upTo.epoch, ranges: extent.beyond.slice(-RANGES) }]),
    ),
    claims: Object.fromEntries([...claims].filter(([, { until }]) => until > now)),
  };
}

/** Whatever somebody may have written into our database. @param {unknown} places @param {any} rest @returns {State} */
function parseState(places, rest) {
  /** @type {Map<string, Extent>} */
  const extents = new Map();
  const said = parsePlaces(places);
  const saidBefore = parsePlaces(rest?.said);
  const upTo = parsePlaces(rest?.upTo);
  for (const [channel, place] of said) {
    const { epoch, seq } = place;
    const before = saidBefore.get(channel);
    const grown = before?.epoch === epoch && seq >= before.seq; // else it was set anew
    const extent = extentUpTo((grown && upTo.get(channel)) || place);
    const beyond = rest?.beyond?.[channel];
    if (beyond?.epoch === epoch) {
      for (const [first, last] of parseRanges(beyond.ranges)) include(extent, epoch, first, last);
    }
    if (grown) include(extent, epoch, before.seq + 1, seq); // by a tab of the first version
    extents.set(channel, extent);
  }
  /** @type {Map<string, Claim>} */
  const claims = new Map();
  for (const [cursor, claim] of Object.entries(rest?.claims ?? {})) {
    if (typeof claim?.tab === "string" && typeof claim.until === "number") claims.set(cursor, claim);
  }
  return { extents, claims, said };
}

/** @param {unknown} stored @returns {Places} */
function parsePlaces(stored) {
  try {
    return parseCursors(typeof stored === "string" ? stored : "");
  } catch {
    return new Map(); // not ours: as if nothing had been there
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
