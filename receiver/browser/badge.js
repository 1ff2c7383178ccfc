/** A number before the page's title: "(2) Orders". It is read in the row of tabs, where no pop-up is. */

export class TitleBadge {
  #title = document.title;
  #count = 0;

  get count() {
    return this.#count;
  }

  set count(count) {
    this.#count = count;
    document.title = count > 0 ? `(${count}) ${this.#title}` : this.#title;
  }
}
