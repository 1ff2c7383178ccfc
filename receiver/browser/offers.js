/**
 * From received to seen: the alerts that nobody has shown yet, as far as this tab knows.
 *
 * An alert waits here until this tab can show it: somebody listens, the page is on a visible screen, there is room for
 * it. Only then it is claimed (shown.js) and offered to the listeners of "alert"; so a tab that can't show leaves it to
 * others, and none holds more than it shows. When the page is hidden, what was not seen yet is given back.
 *
 * @typedef {import("./orderbell.js").CloudEvent} CloudEvent
 * @typedef {import("./cursors.js").Place} Place
 * @typedef {import("./shown.js").Shown} Shown
 * @typedef {import("./alert.js").Room} Room
 *
 * @typedef {object} Waiting
 * @property {string} cursor
 * @property {string} channel
 * @property {Place} place
 * @property {CloudEvent} event
 * @property {number} due  not before
 * @property {boolean} [missed]  held back until all that was missed is here: it may be taken back by what still comes
 * @property {number} [tries]  how often it was offered here, and not seen
 *
 * @typedef {object} Held  claimed, and on its way to the screen
 * @property {Waiting} alert
 * @property {AbortController} controller
 * @property {number} since
 *
 * @typedef {object} Tab  what an Offers asks of its AlertSource, and what it reports to it
 * @property {() => boolean} shows  whether an alert could be shown at this moment
 * @property {() => Promise<unknown>} settled  what is known of earlier alerts is stored
 * @property {(alert: Waiting, signal: AbortSignal, ended: AbortSignal) => { showing: Promise<void> | null, failed: boolean, alert: { room: Room | null } }} offer
 * @property {(event: CloudEvent) => boolean} isOver  whether it must no longer pop up
 * @property {(channel: string) => void} seen  this tab has shown something of the channel
 * @property {(alert: { channel: string, place: Place }) => void} elsewhere  another tab has
 * @property {() => number} now
 * @property {(action: () => void, ms: number) => number} setTimeout
 * @property {(timer: number | undefined) => void} clearTimeout
 * @property {(text: string, detail?: unknown) => void} log
 */

const BATCH = 32; // of one transaction: its listeners run in one go, and nothing may stall for 50 ms
const MOST = 2_000; // waiting; of more, the oldest come again with the next visit
const MOST_OFFERED = 500; // that can still be removed from the screen
const RENEW_MS = 2_000;
const HOLD_MS = 20_000; // claimed and not seen: something covers it, or a listener's promise never comes
const RETRY_MS = 5_000; // others go first; then twice as long, and again
const LONGEST_RETRY_MS = 60_000;

export class Offers {
  /** By cursor, in the order of arrival. @type {Map<string, Waiting>} */
  #waiting = new Map();
  /** @type {Map<string, Held>} */
  #held = new Map();
  /** Those that this page shows, or has shown, and what removes them again; the oldest first. @type {Map<Waiting, AbortController>} */
  #offered = new Map();
  /** @type {Waiting[]} */
  #confirming = [];
  /** @type {Room | null} */
  #room = null;
  /** @type {number | undefined} */
  #waking;
  /** @type {number | undefined} */
  #renewing;
  #closed = false;
  #running = false;
  #again = false;
  #pump = () => this.pump();
  #shown;
  #tab;

  /** @param {Shown} shown @param {Tab} tab */
  constructor(shown, tab) {
    this.#shown = shown;
    this.#tab = tab;
  }

  /** @param {Waiting} alert */
  add(alert) {
    this.#waiting.set(alert.cursor, alert);
    if (this.#waiting.size > MOST && !alert.missed) this.#waiting.delete(/** @type {string} */ (this.#waiting.keys().next().value));
    this.pump();
  }

  /** All is here that was missed, of some channels. @param {(channel: string) => boolean} which @returns {Waiting[]} what it was */
  caughtUp(which) {
    const missed = [...this.#waiting.values()].filter((alert) => alert.missed && which(alert.channel));
    for (const alert of missed) alert.missed = false;
    this.pump();
    return missed;
  }

  /** These are no alerts any more: they don't pop up, and go from the screen. @param {(alert: Waiting) => boolean} which */
  retire(which) {
    for (const alert of this.#waiting.values()) if (which(alert)) void this.#shown.pass(alert);
    this.drop(which);
    for (const [alert, controller] of this.#offered) {
      if (which(alert) && this.#offered.delete(alert)) controller.abort();
    }
  }

  /** Another tab or device has shown these. @param {(alert: Waiting) => boolean} which */
  drop(which) {
    for (const [cursor, alert] of this.#waiting) if (which(alert)) this.#waiting.delete(cursor);
    for (const [cursor, { alert, controller }] of this.#held) {
      if (!which(alert)) continue;
      this.#held.delete(cursor);
      controller.abort();
    }
  }

  /** Others have left something: what they had claimed may be claimed now. */
  free() {
    for (const alert of this.#waiting.values()) alert.due = Math.min(alert.due, this.#tab.now());
    this.pump();
  }

  /** Something has changed: the page is looked at, somebody listens, there is room. */
  pump() {
    if (this.#running) this.#again = true;
    else void this.#run();
  }

  /** Gives back what was not seen yet: the page is hidden, or goes. @returns {Promise<void>} */
  async giveBack(delay = 0) {
    const held = [...this.#held.values()];
    this.#held.clear();
    for (const { alert, controller } of held) this.#keep(alert, controller, delay);
    await this.#shown.release(held.map(({ alert }) => alert));
  }

  close() {
    this.#closed = true;
    this.#waiting.clear();
    void this.giveBack();
    this.#waiting.clear();
    this.#tab.clearTimeout(this.#waking);
    this.#tab.clearTimeout(this.#renewing);
  }

  /** @param {Waiting} alert @param {AbortController} controller @param {number} delay */
  #keep(alert, controller, delay) {
    this.#waiting.set(alert.cursor, { ...alert, due: this.#tab.now() + delay });
    controller.abort();
  }

  get #able() {
    return !this.#closed && this.#tab.shows() && (this.#room?.hasRoom ?? true);
  }

  async #run() {
    this.#running = true;
    try {
      do {
        this.#again = false;
        while (this.#able && (await this.#claimDue()));
      } while (this.#again && this.#able);
    } finally {
      this.#running = false;
      this.#wake();
    }
  }

  /** @returns {Promise<boolean>} whether there may be more to claim at once */
  async #claimDue() {
    await this.#tab.settled();
    const now = this.#tab.now();
    for (const alert of this.#waiting.values()) {
      if (!alert.missed && this.#tab.isOver(alert.event) && this.#waiting.delete(alert.cursor)) void this.#shown.pass(alert);
    }
    // Nothing waits for longer than that; where it seems so, the clock was put back.
    const isDue = (/** @type {Waiting} */ { due, missed }) => !missed && (due <= now || due - now > LONGEST_RETRY_MS);
    const due = [...this.#waiting.values()].filter(isDue).slice(0, BATCH);
    if (due.length === 0) return false;
    const outcomes = await this.#shown.claim(due.map((alert) => ({ ...alert, show: () => this.#offer(alert) })));
    let more = false;
    for (const [alert, outcome] of outcomes) {
      if (outcome === "left") continue; // it waits on, or is given up
      if (typeof outcome === "object") {
        const waiting = this.#waiting.get(alert.cursor);
        if (waiting) waiting.due = outcome.taken;
        continue;
      }
      more = true;
      if (outcome === "before" && this.#waiting.delete(alert.cursor)) this.#tab.elsewhere(alert);
      if (outcome === "shown") this.#tab.seen(alert.channel);
    }
    return more;
  }

  /** @param {Waiting} alert @returns {"shown" | "claimed" | "left"} */
  #offer(alert) {
    // The transaction may have had to wait: the page may be hidden by now, the alert dropped, the room taken.
    if (!this.#able || !this.#waiting.has(alert.cursor)) return "left";
    const controller = new AbortController();
    const ended = new AbortController();
    this.#offered.set(alert, ended);
    if (this.#offered.size > MOST_OFFERED) this.#offered.delete(/** @type {Waiting} */ (this.#offered.keys().next().value));
    const { showing, failed, alert: offered } = this.#tab.offer(alert, controller.signal, ended.signal);
    const look = () => void (this.#room = offered.room ?? this.#room);
    look();
    this.#waiting.delete(alert.cursor);
    // Nobody has seen it, and it would fail again: it is left to other tabs, and to the next visit of this page.
    if (!showing && failed) return "left";
    if (!showing) return "shown";
    if (this.#closed) return "left";
    this.#held.set(alert.cursor, { alert, controller, since: this.#tab.now() });
    this.#renewLater();
    showing.finally(look).then(
      () => this.#saw(alert, controller),
      () => this.#letGo(alert, controller),
    );
    return "claimed";
  }

  // --- what is on its way to the screen --------------------------------------------------------------------

  /** @param {Waiting} alert @param {AbortController} controller */
  #saw(alert, controller) {
    if (this.#held.get(alert.cursor)?.controller !== controller) return; // given back meanwhile
    this.#held.delete(alert.cursor);
    this.#confirming.push(alert);
    if (this.#confirming.length > 1) return;
    // Those of one moment together: a toast may stand for a hundred alerts.
    setTimeout(async () => {
      const alerts = this.#confirming.splice(0);
      const others = new Set(await this.#shown.confirm(alerts));
      for (const one of alerts) if (!others.has(one)) this.#tab.seen(one.channel);
    });
  }

  /** It could not be shown here. @param {Waiting} alert @param {AbortController} controller */
  #letGo(alert, controller) {
    if (this.#held.get(alert.cursor)?.controller !== controller) return;
    this.#held.delete(alert.cursor);
    const { tries = 0 } = alert;
    this.#keep({ ...alert, tries: tries + 1 }, controller, Math.min(RETRY_MS * 2 ** tries, LONGEST_RETRY_MS));
    void this.#shown.release([alert]);
    this.#wake();
  }

  #renewLater() {
    if (this.#renewing !== undefined || this.#closed) return;
    this.#renewing = this.#tab.setTimeout(() => void this.#renew(), RENEW_MS);
  }

  async #renew() {
    const old = [...this.#held.values()].filter(({ since }) => Math.abs(this.#tab.now() - since) > HOLD_MS);
    for (const { alert, controller } of old) {
      this.#tab.log("an alert was not seen; left to others", alert.cursor);
      this.#letGo(alert, controller);
    }
    const lost = await this.#shown.renew([...this.#held.values()].map(({ alert }) => alert));
    for (const alert of lost) {
      const held = this.#held.get(/** @type {Waiting} */ (alert).cursor);
      if (!held) continue;
      this.#held.delete(held.alert.cursor);
      this.#keep(held.alert, held.controller, 0); // the next claim finds out what became of it
    }
    this.#renewing = undefined;
    if (this.#held.size > 0) this.#renewLater();
    if (lost.length > 0) this.pump();
  }

  /** Comes back when the next alert falls due, or there is room. */
  #wake() {
    this.#tab.clearTimeout(this.#waking);
    this.#waking = undefined;
    if (this.#closed || this.#waiting.size === 0 || !this.#tab.shows()) return;
    if (this.#room && !this.#room.hasRoom) return this.#room.whenRoom(this.#pump);
    const next = Math.min(...[...this.#waiting.values()].map(({ due, missed }) => (missed ? Infinity : due)));
    if (next === Infinity) return;
    this.#waking = this.#tab.setTimeout(() => this.pump(), Math.max(0, next - this.#tab.now()));
  }
}
