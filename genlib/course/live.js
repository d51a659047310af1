// The page's half of genlib.course.live: it repeats the tape that Python recorded, and draws what comes out.
// One expression, which Python puts into each output; the first output of a page keeps it for the others.
(() => {
"use strict";

// ---- Arrays. A value is {shape, data}: data is a Float64Array in row-major order, made once and filled again. ----

const size = shape => shape.reduce((a, b) => a * b, 1);
const strides = shape => shape.map((_, i) => size(shape.slice(i + 1)));

// Where each element of a view lies in the array that it looks at.
function places(shape, stride, offset = 0) {
  const found = new Int32Array(size(shape)), at = shape.map(() => 0);
  for (let i = 0, p = offset; i < found.length; i++) {
    found[i] = p;
    for (let d = shape.length - 1; d >= 0; d--) {
      p += stride[d];
      if (++at[d] < shape[d]) break;
      p -= at[d] * stride[d];
      at[d] = 0;
    }
  }
  return found;
}

// How an elementwise operation walks an operand: `by` 0 stays, 1 goes along, and `at` is for all other broadcasting.
function operand(x, shape) {
  if (!x?.data) return {data: Float64Array.of(Number(x ?? 0)), by: 0};
  if (x.data.length === 1) return {data: x.data, by: 0};
  if (x.data.length === size(shape)) return {data: x.data, by: 1};
  const missing = shape.length - x.shape.length, s = strides(x.shape);
  return {data: x.data, at: places(shape, shape.map((_, d) => x.shape[d - missing] > 1 ? s[d - missing] : 0))};
}

const elementwise = f => (args, out) => {
  const [a, b, c] = [0, 1, 2].map(i => operand(args[i], out.shape)), o = out.data;
  return () => {
    for (let i = 0; i < o.length; i++)
      o[i] = f(a.data[a.at ? a.at[i] : i * a.by], b.data[b.at ? b.at[i] : i * b.by], c.data[c.at ? c.at[i] : i * c.by]);
  };
};

const reduce = (f, start) => ([x, dims], out) => {
  const all = dims == null || dims.length === 0, o = out.data, stride = x.shape.map(() => 0);
  const reduced = new Set([dims ?? []].flat().map(d => d < 0 ? d + x.shape.length : d));
  for (let d = x.shape.length - 1, n = 1; d >= 0 && !all; d--)
    if (!reduced.has(d)) { stride[d] = n; n *= x.shape[d]; }
  const at = places(x.shape, stride);
  return () => {
    o.fill(start);
    for (let i = 0; i < at.length; i++) o[at[i]] = f(o[at[i]], x.data[i]);
  };
};

// Call visit(start, step, n) for every line of x along one dimension, or once for all of x.
function lanes(x, dim, visit) {
  if (dim == null || !x.shape.length) return () => visit(0, 1, x.data.length);
  const d = dim < 0 ? dim + x.shape.length : dim, n = x.shape[d], step = size(x.shape.slice(d + 1));
  return () => {
    for (let i = 0; i < x.data.length; i += n * step) for (let j = 0; j < step; j++) visit(i + j, step, n);
  };
}

const scan = f => ([x, dim], out) => lanes(x, dim, (start, step, n) => {
  out.data[start] = x.data[start];
  for (let k = 1, i = start + step; k < n; k++, i += step) out.data[i] = f(out.data[i - step], x.data[i]);
});

const best = better => ([x, dim], out) => {
  let place = 0;
  const run = lanes(x, dim, (start, step, n) => {
    let found = 0;
    for (let k = 1; k < n; k++) if (better(x.data[start + k * step], x.data[start + found * step])) found = k;
    out.data[place++] = found;
  });
  return () => { place = 0; run(); };
};

const sort = which => ([x, dim, descending], out) => lanes(x, dim, (start, step, n) => {
  const value = k => x.data[start + k * step], sign = descending ? -1 : 1;
  const order = Array.from({length: n}, (_, k) => k).sort((a, b) => sign * (value(a) - value(b)) || a - b);
  order.forEach((k, i) => { out.data[start + i * step] = which ? k : value(k); });
});

// The elements x[..., i, j, ...] that index tensors of consecutive dimensions pick: where each lies.
function picked(x, indices) {
  const first = indices.findIndex(Boolean), used = indices.slice(first).filter(Boolean), rank = x.shape.length;
  const across = Math.max(...used.map(i => i.shape.length)), last = first + used.length;
  const both = Array.from({length: across}, (_, d) => Math.max(...used.map(i => i.shape[i.shape.length - across + d] ?? 1)));
  const shape = [...x.shape.slice(0, first), ...both, ...x.shape.slice(last)], s = strides(x.shape);
  const rest = places(shape, [...s.slice(0, first), ...both.map(() => 0), ...s.slice(last)]);
  const tail = Array(rank - last).fill(1);
  const each = used.map(i => operand({shape: [...i.shape, ...tail], data: i.data}, shape));
  const at = k => each.reduce((sum, e, j) => {
    const i = e.data[e.at ? e.at[k] : k * e.by];
    return sum + (i < 0 ? i + x.shape[first + j] : i) * s[first + j];
  }, rest[k]);
  return {shape, at};
}

// The elements that gather and scatter reach: as the index, but along one dimension where the index says.
function reached(x, dim, index) {
  const d = dim < 0 ? dim + x.shape.length : dim, s = strides(x.shape), step = s[d] ?? 1;
  const rest = places(index.shape, s.map((n, i) => i === d ? 0 : n));
  return k => rest[k] + index.data[k] * step;
}

const scatter = add => ([x, dim, index, source], out) => {
  const at = reached(x, dim, index), value = source?.data
    ? {data: source.data, at: places(index.shape, strides(source.shape))} : operand(source, index.shape);
  return () => {
    out.data.set(x.data);
    for (let k = 0; k < index.data.length; k++) {
      const v = value.data[value.at ? value.at[k] : 0], place = at(k);
      out.data[place] = add ? out.data[place] + v : v;
    }
  };
};

const matmul = ([x, y], out) => {
  const [m, k] = x.shape.slice(-2), n = y.shape.at(-1), a = x.data, b = y.data, o = out.data;
  return () => {
    o.fill(0);
    for (let r = 0, row = 0; row < o.length; r++, row += n) {
      const block = Math.floor(r / m) * k * n;
      for (let i = 0; i < k; i++) {
        const v = a[r * k + i], from = block + i * n;
        for (let j = 0; j < n; j++) o[row + j] += v * b[from + j];
      }
    }
  };
};

const pair = (list, one = 0) => list?.length ? (list.length > 1 ? list : [one, list[0]]) : null;
const planes = shape => shape.length > 3 ? shape : [...shape.slice(0, 2), 1, ...shape.slice(2)];

function convolution([x, w, bias, stride, padding, dilation, transposed, , groups], out) {
  // Small is the side with one number for each place of the kernel's step: the output, or, transposed, the input.
  const [N, C, H, W] = planes(x.shape), [O, , KH, KW] = planes(w.shape), [, D, OH, OW] = planes(out.shape);
  const [sy, sx] = pair(stride, 1), [py, px] = pair(padding), [dy, dx] = pair(dilation, 1);
  const cin = C / groups, cout = D / groups, o = out.data, a = x.data, k = w.data;
  const [h, wide, hh, ww] = transposed ? [H, W, OH, OW] : [OH, OW, H, W];
  return () => {
    for (let n = 0; n < N; n++) for (let d = 0; d < D; d++) {
      const to = (n * D + d) * OH * OW, g = Math.floor(d / cout);
      o.fill(bias ? bias.data[d] : 0, to, to + OH * OW);
      for (let c = g * cin; c < (g + 1) * cin; c++) {
        const from = (n * C + c) * H * W, block = transposed ? c * cout + d % cout : d * cin + c % cin;
        for (let ky = 0; ky < KH; ky++) for (let kx = 0; kx < KW; kx++) {
          const v = k[(block * KH + ky) * KW + kx], shift = kx * dx - px;
          const low = Math.max(0, Math.ceil(-shift / sx)), high = Math.min(wide, Math.floor((ww - 1 - shift) / sx) + 1);
          for (let i = 0; i < h; i++) {
            const y = i * sy - py + ky * dy;
            if (y < 0 || y >= hh) continue;
            if (transposed)
              for (let j = low, t = to + y * OW + shift; j < high; j++) o[t + j * sx] += v * a[from + i * W + j];
            else
              for (let j = low, f = from + y * W + shift; j < high; j++) o[to + i * OW + j] += v * a[f + j * sx];
          }
        }
      }
    }
  };
}

const pool = average => ([x, kernel, stride, padding, third, padded, divisor], out) => {
  const [H, W] = x.shape.slice(-2), [OH, OW] = out.shape.slice(-2), [kh, kw] = [kernel, kernel].flat();
  const [sy, sx] = stride?.length ? [stride, stride].flat() : [kh, kw], [py, px] = [padding, padding].flat();
  const [dy, dx] = average ? [1, 1] : [third, third].flat();
  return () => out.data.forEach((_, place) => {
    const j = place % OW, i = Math.floor(place / OW) % OH, from = Math.floor(place / OW / OH) * H * W;
    let sum = 0, most = -Infinity, n = 0;
    for (let y = i * sy - py, a = 0; a < kh; a++, y += dy) for (let z = j * sx - px, b = 0; b < kw; b++, z += dx) {
      if (y < 0 || y >= H || z < 0 || z >= W) continue;
      sum += x.data[from + y * W + z]; n++;
      most = Math.max(most, x.data[from + y * W + z]);
    }
    out.data[place] = average ? sum / (divisor ?? (padded ? kh * kw : n)) : most;
  });
};

// The complement of the error function: a series near zero, a continued fraction far out, 1e-12 relative or better.
function erfc(x) {
  if (x < 0) return 2 - erfc(-x);
  if (x < 2) {
    let term = x, sum = x;
    for (let n = 1; Math.abs(term) > 1e-17 * sum; n++) { term *= -x * x / n; sum += term / (2 * n + 1); }
    return 1 - 2 / Math.sqrt(Math.PI) * sum;
  }
  let tail = 0;
  for (let n = 60; n > 0; n--) tail = n / 2 / (x + tail);
  return Math.exp(-x * x) / Math.sqrt(Math.PI) / (x + tail);
}
function erf(x) {
  if (Math.abs(x) > 1e-2) return 1 - erfc(x);
  return 2 / Math.sqrt(Math.PI) * (x - x ** 3 / 3 + x ** 5 / 10);
}
const sigmoid = x => x < 0 ? Math.exp(x) / (1 + Math.exp(x)) : 1 / (1 + Math.exp(-x));
const modulo = (a, b) => a - b * Math.floor(a / b);
function even(x) {  // halves go to the even neighbour, as in torch
  const near = Math.round(x);
  return Math.abs(x % 1) === 0.5 && near % 2 ? near - 1 : near;
}

// By the names of ATen. Arguments stand in ATen's order, tensors as values; what is not used is left out.
const EACH = {
  abs: Math.abs, acos: Math.acos, asin: Math.asin, atan: Math.atan, ceil: Math.ceil, cos: Math.cos, cosh: Math.cosh,
  exp: Math.exp, expm1: Math.expm1, floor: Math.floor, log: Math.log, log10: Math.log10, log1p: Math.log1p,
  log2: Math.log2, sign: Math.sign, sin: Math.sin, sinh: Math.sinh, sqrt: Math.sqrt, tan: Math.tan, tanh: Math.tanh,
  trunc: Math.trunc, erf: erf, erfc: erfc, sigmoid: sigmoid, round: even,
  neg: a => -a, reciprocal: a => 1 / a, rsqrt: a => 1 / Math.sqrt(a), relu: a => a < 0 ? 0 : a,
  isnan: a => Number.isNaN(a), isinf: a => Math.abs(a) === Infinity, logical_not: a => !a,
  add: (a, b, k) => a + k * b, sub: (a, b, k) => a - k * b, rsub: (a, b, k) => b - k * a,
  mul: (a, b) => a * b, div: (a, b) => a / b, pow: (a, b) => b === 2 ? a * a : a ** b, atan2: (a, b) => Math.atan2(a, b),
  floor_divide: (a, b) => Math.floor(a / b), remainder: modulo, fmod: (a, b) => a % b,
  maximum: (a, b) => Math.max(a, b), minimum: (a, b) => Math.min(a, b),
  eq: (a, b) => a === b, ne: (a, b) => a !== b, lt: (a, b) => a < b, le: (a, b) => a <= b, gt: (a, b) => a > b,
  ge: (a, b) => a >= b, logical_and: (a, b) => a && b ? 1 : 0, logical_or: (a, b) => a || b ? 1 : 0,
  logical_xor: (a, b) => !a !== !b, copy: (a, b) => b, fill: (a, b) => b, zero: () => 0,
  where: (a, b, c) => a ? b : c, masked_fill: (a, b, c) => b ? c : a, lerp: (a, b, c) => a + c * (b - a),
  clamp_min: (a, b) => Math.max(a, b), clamp_max: (a, b) => Math.min(a, b), leaky_relu: (a, b) => a > 0 ? a : a * b,
  softplus: (a, b, c) => a * b > c ? a : Math.log1p(Math.exp(a * b)) / b,
};
const OPS = {
  clamp: ([x, low, high], out) =>
    elementwise((a, b, c) => Math.min(Math.max(a, b), c))([x, low ?? -Infinity, high ?? Infinity], out),
  sum: reduce((a, b) => a + b, 0), prod: reduce((a, b) => a * b, 1), any: reduce((a, b) => a || b ? 1 : 0, 0),
  all: reduce((a, b) => a && b ? 1 : 0, 1), amax: reduce((a, b) => Math.max(a, b), -Infinity),
  amin: reduce((a, b) => Math.min(a, b), Infinity), max: reduce((a, b) => Math.max(a, b), -Infinity),
  min: reduce((a, b) => Math.min(a, b), Infinity),
  argmax: best((a, b) => a > b), argmin: best((a, b) => a < b),
  cumsum: scan((a, b) => a + b), cumprod: scan((a, b) => a * b), sort_0: sort(0), sort_1: sort(1),
  mm: matmul, bmm: matmul, convolution: convolution, max_pool2d_with_indices_0: pool(false), avg_pool2d: pool(true),
  scatter: scatter(false), scatter_add: scatter(true),
  view([x], out) { out.data = x.data; },
  strided([x, shape, stride, offset], out) {
    const at = places(shape, stride, offset);
    return () => { for (let i = 0; i < at.length; i++) out.data[i] = x.data[at[i]]; };
  },
  put([x, value, shape, stride, offset], out) {
    const at = places(shape, stride, offset);
    return () => { out.data.set(x.data); at.forEach((place, i) => { out.data[place] = value.data[i]; }); };
  },
  cat([parts, dim], out) {
    const along = dim < 0 ? dim + out.shape.length : dim, width = size(out.shape.slice(along));
    return () => {
      let start = 0;
      for (const x of parts.filter(x => x.data.length)) {
        const step = size(x.shape.slice(along));
        for (let i = 0; i < x.data.length; i += step) out.data.set(x.data.subarray(i, i + step), i / step * width + start);
        start += step;
      }
    };
  },
  gather([x, dim, index], out) {
    const at = reached(x, dim, index);
    return () => out.data.forEach((_, k) => { out.data[k] = x.data[at(k)]; });
  },
  index([x, indices], out) {
    const {at} = picked(x, indices);
    return () => out.data.forEach((_, k) => { out.data[k] = x.data[at(k)]; });
  },
  index_put([x, indices, values, add], out) {
    const {shape, at} = picked(x, indices), v = operand(values, shape), n = size(shape);
    return () => {
      out.data.set(x.data);
      for (let k = 0; k < n; k++) {
        const value = v.data[v.at ? v.at[k] : k * v.by], place = at(k);
        out.data[place] = add ? out.data[place] + value : value;
      }
    };
  },
  searchsorted([edges, x, , right], out) {
    const n = edges.shape.at(-1), row = edges.shape.length > 1 ? x.shape.at(-1) : Infinity, at = operand(x, out.shape);
    return () => out.data.forEach((_, k) => {
      let low = 0, high = n;
      const from = row === Infinity ? 0 : Math.floor(k / row) * n, v = at.data[k * at.by];
      while (low < high) {
        const middle = (low + high) >> 1, e = edges.data[from + middle];
        if (right ? e <= v : e < v) low = middle + 1; else high = middle;
      }
      out.data[k] = low;
    });
  },
};
for (const [name, f] of Object.entries(EACH)) OPS[name] = elementwise(f);
// ---- end of the operations ----

function bytes(base64) {
  const text = atob(base64), found = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) found[i] = text.charCodeAt(i);
  return found.buffer;
}

function half(h) {
  const e = h >> 10 & 31, f = h & 1023, sign = h >> 15 ? -1 : 1;
  return sign * (e ? e === 31 ? (f ? NaN : Infinity) : 2 ** (e - 15) * (1 + f / 1024) : f * 2 ** -24);
}

// A constant of the tape as numbers.
function constant([kind, shape, start], buffer) {
  const n = size(shape), types = {f4: Float32Array, f2: Uint16Array, i4: Int32Array, i1: Int8Array, u1: Uint8Array};
  if (kind === "same") return {shape, data: new Float64Array(n).fill(Number(start))};
  const data = Float64Array.from(new types[kind](buffer, start, n));
  if (kind === "f2") data.forEach((h, i) => { data[i] = half(h); });
  if (kind === "i1") {
    const row = n / shape[0], scale = new Float32Array(buffer, start + 4 * Math.ceil(n / 4), shape[0]);
    data.forEach((v, i) => { data[i] = v * scale[Math.floor(i / row)]; });
  }
  return {shape, data};
}

// Make the tape ready: run(values of the inputs) fills and returns the outputs.
function compile(tape) {
  const buffer = bytes(tape.blob), fixed = tape.constants.map(c => constant(c, buffer));
  const values = [...tape.inputs.map(shape => ({shape, data: new Float64Array(size(shape)), live: true})), ...fixed];
  const number = a => a === "Infinity" || a === "-Infinity" || a === "NaN" ? Number(a) : a;
  const resolve = a => Array.isArray(a) ? a.map(resolve)
    : typeof a === "string" && a[0] === "$" ? values[a.slice(1)] : number(a);
  const steps = [];
  for (const [name, args, shape] of tape.ops) {
    const given = args.map(resolve), out = {shape, data: null};
    out.live = given.flat().some(a => a?.live);
    if (name !== "view") out.data = new Float64Array(size(shape));
    const run = OPS[name](given, out);
    if (run && out.live) steps.push(run); else run?.();
    values.push(out);
  }
  return {
    starts: tape.starts.map(s => s && constant(s, buffer).data),
    run(inputs) {
      inputs.forEach((x, i) => values[i].data.set(x));
      for (const step of steps) step();
      return tape.outputs.map(i => values[i]);
    },
  };
}

// ---- Drawing ----

const LIGHT = ["#0072B2", "#D55E00", "#00795A", "#A64D83", "#B87A00"];
const DARK = ["#5CB8F0", "#FF8F4D", "#3CC99A", "#E79BCB", "#EBBB3F"];
const DASHES = [[], [7, 4], [8, 3, 2, 3], [2, 3], [7, 2, 2, 2]];

function number(x, whole = false) {
  const text = whole || x === 0 || !Number.isFinite(x) ? String(x) : x.toPrecision(3);
  return text.replace("Infinity", "∞").replace("-", "−");
}
const below = text => text.replace(/_(\d)/g, (_, digit) => "₀₁₂₃₄₅₆₇₈₉"[digit]);
const plain = text => below(text).replaceAll("$", "");
function rich(text, box) {  // what stands between two $ is a variable
  below(text).split("$").forEach((part, i) => box.append(i % 2 ? Object.assign(document.createElement("i"), {textContent: part}) : part));
  return box;
}

function ticks(low, high, most) {
  const raw = (high - low) / most, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map(m => m * power).find(s => s >= raw * 0.999), found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(i * step);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) + (step / power === 2.5 ? 1 : 0);
  return found.map(t => [t, t.toFixed(digits).replace(/^-0(\.0*)?$/, "0").replace("-", "−")]);
}

// Text with variables in italics, from x leftwards by `align` of its width; returns the width.
function write(pen, text, x, y, align = 0) {
  const upright = pen.font, parts = below(text).split("$").map((part, i) => [part, i % 2 ? "italic " + upright : upright]);
  const widths = parts.map(([part, font]) => { pen.font = font; return pen.measureText(part).width; });
  const total = widths.reduce((a, b) => a + b, 0);
  x -= align * total;
  parts.forEach(([part, font], i) => { pen.font = font; pen.fillText(part, x, y); x += widths[i]; });
  pen.font = upright;
  return total;
}

function drawLines(canvas, view, outputs) {
  const pen = canvas.getContext("2d"), style = getComputedStyle(canvas), ink = style.color;
  const dark = ink.match(/[\d.]+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0) > 380, colors = dark ? DARK : LIGHT;
  const [[x0, x1], [y0, y1]] = [view.xlim, view.ylim], width = canvas.parentNode.clientWidth, line = 17;
  pen.font = `13px ${style.fontFamily}`;
  const named = [...view.behind, ...view.labels.map((label, i) => [label, null, view.styles[i], i])].filter(([label]) => label);
  const yTicks = ticks(y0, y1, 5), left = Math.max(...yTicks.map(([, t]) => pen.measureText(t).width)) + (view.ylabel ? 32 : 12);
  let lines = 0, at = left;  // the legend stands above the axes, in as many rows as it needs
  const spots = named.map(([label]) => {
    const w = pen.measureText(plain(label)).width + 46;
    if (at > left && at + w > width) { lines++; at = left; }
    at += w;
    return [at - w, lines * line + 10];
  });
  const top = named.length ? (lines + 1) * line + 8 : 10, w = Math.min(width - left - 14, view.square ? 400 : Infinity), bottom = (view.xlabel ? 44 : 26) + (view.rug ? 8 : 0);
  const h = view.square ? w * (y1 - y0) / (x1 - x0) : Math.max(170, Math.min(width, 640) * view.height / 5.8 - top - bottom + 30);
  const full = view.square ? Math.min(width, left + w + 14) : width, height = top + h + bottom, ratio = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(full * ratio) || canvas.height !== Math.round(height * ratio)) {
    Object.assign(canvas, {width: Math.round(full * ratio), height: Math.round(height * ratio)});
    Object.assign(canvas.style, {width: full + "px", height: height + "px"});
  }
  const X = x => left + (x - x0) / (x1 - x0) * w, Y = y => top + (y1 - y) / (y1 - y0) * h;
  canvas.read = {x: px => x0 + (px - left) / w * (x1 - x0), y: py => y1 - (py - top) / h * (y1 - y0)};
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = `13px ${style.fontFamily}`;
  Object.assign(pen, {strokeStyle: ink, fillStyle: ink, textBaseline: "middle", lineWidth: 1});
  const stroke = (alpha, ...ends) => {
    pen.globalAlpha = alpha;
    pen.beginPath();
    ends.forEach(([x, y], i) => i ? pen.lineTo(x, y) : pen.moveTo(x, y));
    pen.stroke();
    pen.globalAlpha = 1;
  };
  const base = top + h;
  for (const [t, text] of ticks(x0, x1, Math.min(10, w / 45))) {
    stroke(0.15, [X(t), top], [X(t), base]);
    stroke(1, [X(t), base], [X(t), base + 4]);
    write(pen, text, X(t), base + (view.rug ? 21 : 14), 0.5);
  }
  for (const [t, text] of yTicks) {
    stroke(0.15, [left, Y(t)], [left + w, Y(t)]);
    stroke(1, [left - 4, Y(t)], [left, Y(t)]);
    write(pen, text, left - 8, Y(t), 1);
  }
  stroke(1, [left, top], [left, base], [left + w, base]);
  if (view.xlabel) write(pen, view.xlabel, left + w / 2, height - 10, 0.5);
  if (view.ylabel) {
    pen.save();
    pen.translate(9, top + h / 2);
    pen.rotate(-Math.PI / 2);
    write(pen, view.ylabel, 0, 0, 0.5);
    pen.restore();
  }
  for (const x of view.rug ?? []) if (x >= x0 && x <= x1) stroke(0.35, [X(x), base + 3], [X(x), base + 11]);
  // One line of (n, 2) numbers in its style; also the short sample of it in the legend.
  const draw = (data, kind, i, X, Y, zero) => {
    const color = i === undefined ? ink : colors[i % colors.length], n = data.length / 2;
    Object.assign(pen, {strokeStyle: color, fillStyle: color, lineWidth: i === undefined ? 1.5 : 2, lineJoin: "round"});
    if (kind === "dots" || kind === "cloud") {
      pen.globalAlpha = i === undefined ? 0.25 : kind === "cloud" ? 0.6 : 1;
      const r = kind === "cloud" ? (n > 1 ? 1.7 : 3) : 4;
      for (let k = 0; k < n; k++) {
        pen.beginPath();
        pen.arc(X(data[2 * k]), Y(data[2 * k + 1]), r, 0, 7);
        pen.fill();
      }
    } else {
      pen.globalAlpha = i === undefined ? 0.6 : 1;
      pen.setLineDash(kind === "dashed" ? DASHES[1] : DASHES[(i ?? 0) % DASHES.length]);
      pen.beginPath();
      for (let k = 0, down = false; k < n; k++) {
        const y = Math.max(-1e5, Math.min(1e5, Y(data[2 * k + 1])));
        if (Number.isNaN(y)) { down = false; continue; }
        if (down) pen.lineTo(X(data[2 * k]), y); else pen.moveTo(X(data[2 * k]), y);
        down = true;
      }
      if (kind !== "fill" && kind !== "truth") pen.stroke();
      else if (n) {
        pen.lineTo(X(data[2 * n - 2]), zero);
        pen.lineTo(X(data[0]), zero);
        pen.globalAlpha = 0.28;
        pen.fill();
      }
      pen.setLineDash([]);
    }
    pen.globalAlpha = 1;
  };
  named.forEach(([label, , kind, i], k) => {
    const [x, y] = spots[k], area = kind === "fill" || kind === "truth";
    const sample = kind === "dots" || kind === "cloud" ? [0.5, 0] : area ? [0, -1, 1, -1] : [0, 0, 1, 0];
    draw(sample, kind, i, v => x + 26 * v, v => y + 5 * v, y + 5);
    pen.fillStyle = ink;
    write(pen, label, x + 32, y);
  });
  pen.save();
  pen.beginPath();
  pen.rect(left - 1, top - 5, w + 6, h + 5.5);
  pen.clip();
  for (const [, data, kind] of view.behind) draw(data, kind, undefined, X, Y, Y(Math.max(0, y0)));
  outputs.forEach((x, i) => draw(x.data, view.styles[i], i, X, Y, Y(Math.max(0, y0))));
  pen.restore();
}

function drawImage(canvas, view, [x]) {
  const [H, W] = x.shape.slice(-2), n = x.data.length / H / W, columns = Math.min(view.columns, n);
  const gap = n > 1 ? 1 : 0, width = columns * (W + gap) + gap, height = Math.ceil(n / columns) * (H + gap) + gap;
  if (canvas.width !== width || canvas.height !== height) {
    Object.assign(canvas, {width, height});
    Object.assign(canvas.style, {width: width * view.scale + "px", height: "auto", imageRendering: "pixelated"});
  }
  const pen = canvas.getContext("2d"), picture = pen.createImageData(width, height);
  for (let i = 0; i < picture.data.length; i += 4) picture.data.set([128, 128, 128, 255], i);
  x.data.forEach((v, place) => {
    const k = Math.floor(place / H / W), i = Math.floor(place / W) % H, j = place % W;
    const row = gap + Math.floor(k / columns) * (H + gap) + i, column = gap + k % columns * (W + gap) + j;
    const grey = 255 * (1 - Math.min(1, Math.max(0, v)));
    picture.data.fill(grey, 4 * (row * width + column), 4 * (row * width + column) + 3);
  });
  pen.putImageData(picture, 0, 0);
}

// ---- The page ----

const CSS = `
.text_html:has(> .genlib-live) { background: none !important; padding: 0 !important; }
.genlib-live { position: relative; max-width: 640px; margin: 0 auto; text-align: left; font: 400 15px/1.4 var(--course-sans, system-ui, sans-serif);
  color: var(--pst-color-text-base, var(--jp-ui-font-color1, #1b1f24)); }
html[theme=dark] .genlib-live { color: #e3e3e3; }
.genlib-live canvas { display: block; margin: 0 auto; max-width: 100%; }
.genlib-live .drags-x { touch-action: pan-y; cursor: ew-resize; }
.genlib-live .drags-y { touch-action: pan-x; cursor: ns-resize; }
.genlib-live .controls { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; align-items: center; margin: .6rem 0 0;
  padding: .5rem .8rem; border: 1px solid var(--pst-color-border, var(--jp-border-color2, #c9cfd6)); border-radius: .3rem; }
.genlib-live .control { display: flex; flex: 1 1 20rem; min-width: 0; gap: .7rem; align-items: center; min-height: 2rem; }
.genlib-live label { display: flex; flex: 1; min-width: 0; margin: 0; gap: .7rem; align-items: center; white-space: nowrap; }
.genlib-live input { flex: 1; width: 0; min-width: 4rem; height: 1.6rem; margin: 0;
  accent-color: var(--pst-color-primary, var(--jp-brand-color1, #1d4e89)); }
.genlib-live .value { min-width: 3.4em; text-align: right; font-variant-numeric: tabular-nums; }
.genlib-live .pad { flex: 1 1 100%; display: flex; flex-wrap: wrap; gap: .5rem 1.2rem; align-items: center; }
.genlib-live .square { position: relative; width: 8.5rem; height: 8.5rem; touch-action: none; cursor: crosshair;
  border: 1px solid currentColor; border-radius: .2rem;
  background: linear-gradient(currentColor, currentColor) center/100% 1px no-repeat,
    linear-gradient(currentColor, currentColor) center/1px 100% no-repeat; background-blend-mode: normal; }
.genlib-live .knob { position: absolute; width: 1.3rem; height: 1.3rem; margin: -.65rem; border-radius: 50%;
  background: var(--pst-color-primary, var(--jp-brand-color1, #1d4e89)); border: 2px solid #fff; box-sizing: border-box; pointer-events: none; }
.genlib-live .axes { flex: 1 1 12rem; }
.genlib-live .drawing { flex: 1 1 100%; display: flex; flex-wrap: wrap; gap: .5rem 1.2rem; align-items: center; }
.genlib-live .grid { flex: 0 1 auto; display: grid; gap: 1px; box-sizing: border-box; border: 1px solid #9aa1a9; background: #9aa1a9;
  touch-action: none; cursor: crosshair; forced-color-adjust: none; }
.genlib-live .grid i { background: #fff; }
.genlib-live .grid .ink { background: #000; }
.genlib-live .grid:focus-visible .at { box-shadow: inset 0 0 0 3px #d55e00; }
.genlib-live button { font: inherit; color: inherit; cursor: pointer; padding: .25rem .9rem; border: 1px solid currentColor;
  border-radius: .3rem; background: none; min-height: 2rem; }
.genlib-live :is(input, button, .square, .grid):focus-visible { outline: 3px solid var(--pst-color-primary, #1d4e89); outline-offset: 2px; }
.genlib-live .says { flex: 1 1 100%; margin: 0; font-variant-numeric: tabular-nums; }
.genlib-live .announced { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
`;

function element(kind, className, parent, properties = {}) {
  const box = Object.assign(document.createElement(kind), {className}, properties);
  parent?.append(box);
  return box;
}

// Normal numbers that come out the same on every page: mulberry32, then Box and Muller.
function generator(seed) {
  const uniform = () => {
    seed = seed + 0x6D2B79F5 | 0;
    let t = Math.imul(seed ^ seed >>> 15, 1 | seed);
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t;
    return ((t ^ t >>> 14) >>> 0) / 2 ** 32;
  };
  const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return {uniform, normal};
}

// A range input that counts steps. `set` moves it without a call of `moved`.
function slider(parent, {label, low, high, value, step, log}, moved) {
  const box = element("div", "control", parent), holder = element("label", "", box);
  rich(label, element("span", "", holder));
  const count = step ? Math.round((high - low) / step) : 200, whole = Number.isInteger(step) && Number.isInteger(low);
  const input = element("input", "", holder, {type: "range", min: 0, max: count, step: 1});
  const shown = element("span", "value", box);
  shown.setAttribute("aria-hidden", "true");
  const self = {
    value,
    set(x) {
      self.value = Math.min(high, Math.max(low, x));
      input.value = Math.round(count * (log ? Math.log(self.value / low) / Math.log(high / low) : (self.value - low) / (high - low)));
      shown.textContent = number(self.value, whole);
      input.setAttribute("aria-valuetext", shown.textContent);
    },
    says: () => `${plain(label)} ${shown.textContent}`,
  };
  input.addEventListener("input", () => {
    const part = Number(input.value) / count, x = log ? low * (high / low) ** part : low + part * (high - low);
    self.set(Number(x.toPrecision(10)));
    moved();
  });
  self.set(value);
  return self;
}

function pad(parent, {labels, low, high, value}, moved) {
  const box = element("div", "pad", parent), square = element("div", "square", box, {tabIndex: 0}), knob = element("div", "knob", square);
  const axes = element("div", "axes", box);
  const both = labels.map((label, i) => slider(axes, {label, low, high, value: value[i]}, () => { place(); moved(); }));
  square.setAttribute("role", "application");
  square.setAttribute("aria-label", `${labels.map(plain).join(" and ")}: the arrow keys move both`);
  const place = () => both.forEach(({value}, i) => {
    knob.style[i ? "bottom" : "left"] = 100 * (value - low) / (high - low) + "%";
    if (i) knob.style.marginBottom = "-.65rem";
  });
  const go = (x, y) => { both[0].set(x); both[1].set(y); place(); moved(); };
  follow(square, event => {
    const r = square.getBoundingClientRect();
    go(low + (event.clientX - r.left) / r.width * (high - low), high - (event.clientY - r.top) / r.height * (high - low));
  });
  square.addEventListener("keydown", event => {
    const by = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]}[event.key];
    if (!by) return;
    event.preventDefault();
    const step = (high - low) / (event.shiftKey ? 10 : 50);
    go(both[0].value + by[0] * step, both[1].value + by[1] * step);
  });
  place();
  return {get value() { return both.map(s => s.value); }, says: () => both.map(s => s.says()).join(", ")};
}

// Pixels to draw in, one by one with the keys or with strokes, which reach all pixels whose centres they pass near.
function drawing(parent, {label, value: rows}, moved, tell) {
  const H = rows.length, W = rows[0].length, value = rows.flat(), box = element("div", "drawing", parent);
  rich(label, element("span", "", box));
  const grid = element("div", "grid", box, {tabIndex: 0}), pixels = value.map(() => element("i", "", grid));
  grid.style.cssText = `grid-template-columns: repeat(${W}, 1fr); width: ${1.6 * W}rem; aspect-ratio: ${W} / ${H}`;
  grid.setAttribute("role", "application");
  grid.setAttribute("aria-label", `${plain(label)}: the arrow keys move a cursor, space draws or erases`);
  const clear = element("button", "", box, {type: "button", textContent: "Clear"});
  clear.setAttribute("aria-label", `Clear ${plain(label)}`);
  let at = 0, ink = 1, from = null;
  const show = () => pixels.forEach((pixel, k) => { pixel.className = (value[k] ? "ink" : "") + (k === at ? " at" : ""); });
  const fill = (hit, x) => {
    const before = value.join();
    value.forEach((_, k) => { if (hit(k % W, Math.floor(k / W))) value[k] = x; });
    show();
    if (value.join() !== before) moved();
  };
  const press = k => {
    at = k;
    fill((i, j) => j * W + i === at, ink = 1 - value[at]);
  };
  follow(grid, event => {
    const r = grid.getBoundingClientRect(), x = (event.clientX - r.left) / r.width * W, y = (event.clientY - r.top) / r.height * H;
    const within = (a, n) => Math.min(n - 1, Math.max(0, Math.floor(a)));
    if (event.type === "pointerdown") press(within(y, H) * W + within(x, W));
    else {
      const [a, b] = from, u = x - a, v = y - b;
      if (Math.hypot(u, v) < 0.3) return;  // a finger that trembles touches one pixel
      fill((i, j) => {
        const p = i + 0.5 - a, q = j + 0.5 - b, t = Math.min(1, Math.max(0, (p * u + q * v) / (u * u + v * v)));
        return Math.hypot(p - t * u, q - t * v) < 0.6;
      }, ink);
    }
    from = [x, y];
  });
  grid.addEventListener("keydown", event => {
    const by = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (!by && event.key !== " ") return;
    event.preventDefault();
    if (!by) return press(at);
    const i = Math.min(W - 1, Math.max(0, at % W + by[0])), j = Math.min(H - 1, Math.max(0, Math.floor(at / W) + by[1]));
    at = j * W + i;
    show();
    tell(`row ${j + 1}, column ${i + 1}, ${value[at] ? "ink" : "empty"}`);
  });
  clear.addEventListener("click", () => fill(() => true, 0));
  show();
  return {value, says: () => `${plain(label)}: ${value.filter(Boolean).length} of ${H * W} pixels drawn`};
}

// Call `to` for the point where mouse, pen or finger presses and for each that it then reaches.
function follow(box, to) {
  box.addEventListener("pointerdown", event => {
    if (event.button) return;
    box.setPointerCapture(event.pointerId);
    event.preventDefault();
    to(event);
  });
  box.addEventListener("pointermove", event => { if (box.hasPointerCapture(event.pointerId)) to(event); });
}

function start(root) {
  root.dataset.on = "";
  root.addEventListener("keydown", event => event.stopPropagation());  // arrows command JupyterLab
  const spec = JSON.parse(root.querySelector("script[type='application/json']").textContent), {loop} = spec;
  const model = compile(spec.tape), random = generator(1);
  const image = root.querySelector("img");
  if (!document.querySelector("style.genlib-live-style"))
    element("style", "genlib-live-style", document.head, {textContent: CSS});
  const canvases = spec.views.map(view => {
    const canvas = element("canvas", "", element("div", "", root));
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", image.alt);
    return canvas;
  });
  image.hidden = true;  // on paper it stands in for the canvas and its controls
  const panel = element("div", "controls", root);
  const announced = element("div", "announced", root);
  announced.setAttribute("aria-live", "polite");

  let asked = false, quiet = 0, states = [], time = null, playing = false, says = null;
  const ask = () => { if (!asked) { asked = true; requestAnimationFrame(draw); } };
  const changed = () => { states = []; ask(); }, given = c => c.value.length === undefined ? [c.value] : c.value;
  const controls = spec.controls.map((control, i) => {
    if (control.kind === "slider") return slider(panel, control, changed);
    if (control.kind === "pad") return pad(panel, control, changed);
    if (control.kind === "drawing") return drawing(panel, control, changed, text => { announced.textContent = text; });
    const self = {value: model.starts[i], says: () => ""};
    if (control.kind === "noise")
      rich(control.label, element("button", "", panel, {type: "button"})).addEventListener("click", () => {
        self.value = Float64Array.from(self.value, random.normal);
        changed();
      });
    return self;
  });
  spec.controls.forEach(({drags}, i) => {
    if (!drags) return;
    canvases[0].classList.add("drags-" + drags);
    follow(canvases[0], event => {
      const r = canvases[0].getBoundingClientRect(), at = drags === "x" ? event.clientX - r.left : event.clientY - r.top;
      controls[i].set(canvases[0].read[drags](at));
      changed();
    });
  });
  if (loop) {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches, box = element("div", "control", panel);
    const button = element("button", "", box, {type: "button", textContent: still ? "Ten steps" : "Play"});
    const play = on => { playing = on; if (!still) button.textContent = on ? "Pause" : "Play"; };
    time = slider(box, {label: "step $t$", low: 0, high: loop.steps, value: loop.steps, step: 1}, () => { play(false); ask(); });
    button.addEventListener("click", () => {
      if (time.value >= loop.steps) {
        time.set(0);
        states = [];  // with noise of each step, another path
      }
      if (still) time.set(time.value + 10); else play(!playing);
      ask();
    });
    time.ended = () => play(false);
  }
  if (spec.says.length) says = element("p", "says", panel);
  says?.setAttribute("aria-hidden", "true");

  // The state after `time` steps; within one frame as many steps as there is time for.
  function states_at(until) {
    if (!states.length) states.push(Float64Array.from(controls[0].value));
    while (states.length <= time.value && performance.now() < until) {
      const inputs = [states.at(-1), [states.length - 1], ...controls.slice(1).map(given)];
      if (loop.noise) inputs.push(states[0].map(random[loop.noise]));
      states.push(Float64Array.from(model.run(inputs)[0].data));
    }
    if (states.length <= time.value) ask();
    return [{shape: spec.tape.inputs[0], data: states[Math.min(time.value, states.length - 1)]}];
  }

  function draw() {
    asked = false;
    if (!root.isConnected) {  // JupyterLab has taken the output away, perhaps for a while only
      theme.disconnect();
      watching = false;
      return;
    }
    if (!watching) watch();
    if (playing) {
      time.set(time.value + Math.max(1, Math.round(loop.steps / 150)));
      if (time.value < loop.steps) ask(); else time.ended();
    }
    const before = performance.now();
    let outputs = loop ? states_at(before + 12) : model.run(controls.map(given));
    root.outputs = [...outputs];
    spec.views.forEach((view, i) => {
      (view.columns ? drawImage : drawLines)(canvases[i], view, outputs.splice(0, view.labels?.length ?? 1));
    });
    const numbers = spec.says.map((label, i) => [label, number(outputs[i].data[0])]);
    says?.replaceChildren();
    numbers.forEach(([label, value], i) => rich(`${i ? ", " : ""}${label} = ${value}`, says));
    root.dataset.draws = 1 + Number(root.dataset.draws ?? 0);
    root.dataset.milliseconds = performance.now() - before;
    clearTimeout(quiet);  // a screen reader hears where the reader stopped, not every value on the way
    if (root.dataset.draws > 1) quiet = setTimeout(() => {
      const parts = [...controls, ...(time ? [time] : [])].map(c => c.says()).filter(Boolean);
      announced.textContent = [...parts, ...numbers.map(([label, value]) => `${plain(label)} ${value}`)].join(", ");
    }, 600);
  }

  new ResizeObserver(ask).observe(root);
  const theme = new MutationObserver(ask);
  let watching = false;
  function watch() {
    watching = true;
    for (const page of [document.documentElement, document.body])
      theme.observe(page, {attributes: true, attributeFilter: ["data-theme", "data-jp-theme-light", "theme"]});
  }
  draw();
}

return {compile, start: () => document.querySelectorAll(".genlib-live:not([data-on])").forEach(start)};
})()
