// Pictures of 64 x 64 pixels: flat arrays of 3 * 64 * 64 values, channel by channel, as the network takes them.
export const SIZE = 64, AREA = SIZE * SIZE;

/** What is not known is a grey chequerboard, channel by channel, as show.hole has it. -> ImageData */
export function shown(images, known) {
  const picture = new ImageData(SIZE, SIZE);
  for (let i = 0; i < AREA; i++) {
    const grey = 112 + 32 * ((Math.floor(i / SIZE / 4) + Math.floor(i % SIZE / 4)) % 2);
    for (let c = 0; c < 3; c++) picture.data[4 * i + c] = known[c * AREA + i] ? images[c * AREA + i] : grey;
    picture.data[4 * i + 3] = 255;
  }
  return picture;
}

/** A file of a picture, upright, cut to the square in its middle and reduced. */
export async function reduced(file) {
  const whole = await createImageBitmap(file, { imageOrientation: "from-image" });
  let side = Math.min(whole.width, whole.height);
  let from = whole, left = (whole.width - side) / 2, top = (whole.height - side) / 2;
  while (side > SIZE) { // by halves: one large step would leave pixels out
    const next = Math.max(SIZE, Math.ceil(side / 2)), canvas = square(next);
    draw(canvas, from, left, top, side);
    [from, left, top, side] = [canvas, 0, 0, next];
  }
  const canvas = square(SIZE);
  draw(canvas, from, left, top, side);
  const { data } = canvas.getContext("2d").getImageData(0, 0, SIZE, SIZE);
  return Uint8Array.from({ length: 3 * AREA }, (_, i) => data[4 * (i % AREA) + Math.floor(i / AREA)]);
}

function square(side) { return Object.assign(document.createElement("canvas"), { width: side, height: side }); }

function draw(canvas, from, left, top, side) {
  const context = canvas.getContext("2d");
  Object.assign(context, { fillStyle: "#fff", imageSmoothingQuality: "high" });
  context.fillRect(0, 0, canvas.width, canvas.width); // what is transparent is white
  context.drawImage(from, left, top, side, side, 0, 0, canvas.width, canvas.width);
}

// ---- PNG: written from the values themselves, since some browsers alter what is read back from a canvas ----

function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

function chunk(name, content) {
  const whole = new Uint8Array(12 + content.length), view = new DataView(whole.buffer);
  view.setUint32(0, content.length);
  whole.set(new TextEncoder().encode(name), 4);
  whole.set(content, 8);
  view.setUint32(8 + content.length, crc32(whole.subarray(4, 8 + content.length)));
  return whole;
}

async function deflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** -> Blob */
export async function png(images) {
  const rows = new Uint8Array(SIZE * (1 + 3 * SIZE)); // each begins with 0: no filter
  for (let i = 0; i < AREA; i++) {
    const at = Math.floor(i / SIZE) * (1 + 3 * SIZE) + 1 + 3 * (i % SIZE);
    for (let c = 0; c < 3; c++) rows[at + c] = images[c * AREA + i];
  }
  const header = new Uint8Array(13), view = new DataView(header.buffer);
  view.setUint32(0, SIZE);
  view.setUint32(4, SIZE);
  header.set([8, 2], 8); // 8 bits of each channel, red green blue
  const signature = Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10);
  const parts = [signature, chunk("IHDR", header), chunk("IDAT", await deflated(rows)), chunk("IEND", new Uint8Array())];
  return new Blob(parts, { type: "image/png" });
}
