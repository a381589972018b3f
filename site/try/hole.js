// Which pixels are painted, with a past to go back to.
import { AREA, SIZE } from "./pictures.js";

const UNDOS = 50;

export class Hole {
  constructor() { Object.assign(this, { pixels: new Uint8Array(AREA), past: [] }); }

  get empty() { return !this.pixels.includes(1); }

  /** For the network: 1 = given, three channels alike. */
  get given() { return Uint8Array.from({ length: 3 * AREA }, (_, i) => 1 - this.pixels[i % AREA]); }

  remember() {
    this.past.push(this.pixels.slice());
    if (this.past.length > UNDOS) this.past.shift();
  }

  undo() { this.pixels = this.past.pop() ?? this.pixels; }

  /** A disc; a pixel belongs to it if its middle does, and the one under the pointer always does. */
  stamp([x, y], size, value) {
    for (let i = 0; i < AREA; i++) {
      const column = i % SIZE, row = Math.floor(i / SIZE);
      const near = (column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2 <= size * size / 4;
      if (near || (column === Math.floor(x) && row === Math.floor(y))) this.pixels[i] = value;
    }
  }

  line([x, y], [toX, toY], size, value) {
    const steps = Math.ceil(Math.hypot(toX - x, toY - y)) || 1;
    for (let k = 0; k <= steps; k++) this.stamp([x + (toX - x) * k / steps, y + (toY - y) * k / steps], size, value);
  }

  rectangle(top, left, bottom, right) { // half open
    for (let row = top; row < bottom; row++) this.pixels.fill(1, row * SIZE + left, row * SIZE + right);
  }
}
