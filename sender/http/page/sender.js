/**
 * The sender's API as this page uses it.
 *
 * @typedef {object} Order
 * @property {string} order_id
 * @property {string} customer_id
 * @property {"open" | "completed"} status
 * @property {string} created_at
 * @property {string | null} completed_at
 * @property {Record<string, unknown>} data
 */

const LIMIT = 200; // open orders on one page
const RECENT = 20;
const RETRY_MS = [300, 1_000, 2_000, 4_000, 8_000]; // after a lost answer

export class Refused extends Error {
  /** @param {number} status @param {string} detail */
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** Development mode only: the key that `make run` made. @returns {Promise<string>} */
export async function developmentKey() {
  const { api_key } = await json(await fetch("development/api-key"));
  return api_key;
}

export class Sender {
  #headers;

  /** @param {string} key */
  constructor(key) {
    this.#headers = { authorization: `Bearer ${key}` };
  }

  /** Oldest first: the row under somebody's pointer stays where it is. */
  async openOrders() {
    const { orders, before } = await this.#get(`orders?status=open&limit=${LIMIT}`);
    return { orders: /** @type {Order[]} */ (orders.reverse()), more: Boolean(before) };
  }

  /** @returns {Promise<Order[]>} */
  async completedOrders() {
    const { orders } = await this.#get(`orders?status=completed&limit=${RECENT}`);
    return orders;
  }

  /**
   * Completes an order, once, however often its answer is lost.
   *
   * @param {string} orderId
   * @param {{ message: string, key: string, lost: () => void }} how  key: the same for every try; `lost` is told
   *   before another try
   * @returns {Promise<Order>}
   */
  async complete(orderId, { message, key, lost }) {
    const body = JSON.stringify(message ? { data: { message } } : {});
    const headers = { ...this.#headers, "content-type": "application/json", "idempotency-key": key };
    const path = `orders/${encodeURIComponent(orderId)}/complete`;
    for (const wait of [...RETRY_MS, null]) {
      try {
        const answer = await fetch(path, { method: "POST", headers, body });
        if (answer.status < 500 || wait === null) return (await json(answer)).order;
      } catch (error) {
        if (!(error instanceof TypeError) || wait === null) throw error; // TypeError: no answer
      }
      lost();
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
    throw new Error("unreachable: the last try returns or throws");
  }

  /** Cancels an order: its alert is taken back, on every device. @param {string} orderId @returns {Promise<Order>} */
  async cancel(orderId) {
    const headers = { ...this.#headers, "content-type": "application/json" };
    const path = `orders/${encodeURIComponent(orderId)}/cancel`;
    return (await json(await fetch(path, { method: "POST", headers, body: "{}" }))).order;
  }

  /** @param {string} path */
  async #get(path) {
    return json(await fetch(path, { headers: this.#headers }));
  }
}

/** @param {Response} answer @throws {Refused} */
async function json(answer) {
  if (answer.ok) return answer.json();
  const problem = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, problem.detail ?? `The sender answered ${answer.status}.`);
}
