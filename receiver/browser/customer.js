/**
 * Whose page this is, since the first hello. All tabs share a cookie: a tab that signs in as somebody else says so, and
 * the others find out whose cookie it is now.
 */

const CUSTOMERS = "orderbell/customers"; // BroadcastChannel: who is signed in, by cookie

export class Customer {
  /** @type {string | null} */
  #customer = null;
  /** @type {BroadcastChannel | null} */
  #channel = null;

  /** @param {((name: string) => BroadcastChannel) | null} broadcastChannel  null: a token decides @param {() => void} onother */
  constructor(broadcastChannel, onother) {
    try {
      this.#channel = broadcastChannel?.(CUSTOMERS) ?? null;
    } catch {
      // Shown reports it: it makes a channel of its own, and fails as well
    }
    // It may be about another gateway's cookie. Reconnecting shows whose cookie ours is now.
    this.#channel?.addEventListener("message", ({ data }) => {
      if (this.#customer !== null && this.#customer !== data) onother();
    });
  }

  /** @param {readonly string[]} channels  those that the gateway lets us read @returns whether the customer is still the same */
  owns(channels) {
    const customer = channels.find((channel) => channel.startsWith("customer:")) ?? null;
    if (this.#customer === customer) return true;
    if (this.#customer !== null) return false;
    this.#customer = customer;
    this.#channel?.postMessage(customer);
    return true;
  }

  close() {
    this.#channel?.close();
  }
}
