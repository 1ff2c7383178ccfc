/**
 * How long a JWT lives, so that another is had before it ends. Whether it is good is for the gateway to say.
 */

const EARLY = 0.8; // of its life
const LONGEST_MS = 2 ** 31 - 1; // of a timer

/**
 * Milliseconds until it should be renewed, if it was made now; by its own two times where the clock of this
 * machine says what can't be.
 *
 * @param {unknown} token @returns {number | null} null: it doesn't say
 */
export function lifeOf(token) {
  try {
    const payload = String(token).split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const { exp, iat } = JSON.parse(atob(payload));
    if (typeof exp !== "number" || typeof iat !== "number" || exp <= iat) return null;
    const left = exp * 1_000 - Date.now(); // less than its whole life: it was made before
    const life = (exp - iat) * 1_000;
    return Math.min((left > 0 && left < life ? left : life) * EARLY, LONGEST_MS);
  } catch {
    return null; // no JWT
  }
}
