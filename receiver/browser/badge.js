/** A number before the page's title: "(2) Orders". It is read in the row of tabs, where no pop-up is. */

export class TitleBadge {
  #count = 0;
  /** What this badge has put before the title. */
  #prefix = "";
  #watching;

  constructor() {
    // Pages of one document change their title as they go; the number stays.
    this.#watching = new MutationObserver(() => this.#show());
    const title = document.querySelector("title");
    if (title) this.#watching.observe(title, { childList: true, characterData: true, subtree: true });
  }

  get count() {
    return this.#count;
  }

  set count(count) {
    this.#count = count;
    this.#show();
  }

  /** Leaves the title as the page wants it. */
  destroy() {
    this.#watching.disconnect();
    this.count = 0;
  }

  #show() {
    const { title } = document;
    const plain = this.#prefix && title.startsWith(this.#prefix) ? title.slice(this.#prefix.length) : title;
    this.#prefix = this.#count > 0 ? `(${this.#count}) ` : "";
    if (title !== this.#prefix + plain) document.title = this.#prefix + plain;
  }
}
