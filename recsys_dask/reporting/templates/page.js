"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const model = (name) => {
    for (const one of window.Bokeh ? Bokeh.documents : []) {
      const found = one.get_model_by_name(name);
      if (found) return found;
    }
    return null;
  };

  // ------------------------------------------------------------------ plots, one after another: none holds the page up
  const later = window.requestIdleCallback ? (act) => requestIdleCallback(act, { timeout: 150 }) : (act) => setTimeout(act, 0);
  const draw = (at) => {
    if (at === data.plots.length) {
      const map = model("map"), finger = matchMedia("(pointer: coarse)").matches;
      // A finger scrolls the page; two zoom the map.
      for (const tool of map && finger ? map.toolbar.tools : []) if (tool.type === "PanTool") tool.active = false;
      root.dataset.drawn = at;
      return;
    }
    Bokeh.embed.embed_item(data.plots[at]).then(() => later(() => draw(at + 1)));
  };
  later(() => draw(0));

  // ----------------------------------------------------------------------------------------------------------- search
  const search = data.search, box = document.getElementById("query");
  if (!search || !box) return;
  const unpacked = (text, kind) => new kind(Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0)).buffer);
  const mentions = unpacked(search.mentions, Uint32Array), places = unpacked(search.places, Float32Array);
  const lists = {};
  for (const method of search.methods) lists[method] = unpacked(search.neighbours[method], Uint16Array);
  const best = 8, absent = 0xffff, most = 8;
  const plain = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase().trim();
  const folded = search.names.slice(0, search.searched).map(plain);
  const hits = document.getElementById("hits"), found = document.getElementById("found");
  let shown = [], active = 0;

  const make = (tag, text, options) => {
    const made = Object.assign(document.createElement(tag), options || {});
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const named = (at) => make("bdi", search.names[at], { title: search.names[at] });

  const matches = (query) => {
    const ranked = [[], [], [], []];
    folded.forEach((name, at) => {
      const where = name.indexOf(query);
      if (where >= 0) ranked[name === query ? 0 : where === 0 ? 1 : name[where - 1] === " " ? 2 : 3].push(at);
    });
    return ranked.flat().slice(0, most);
  };
  const close = () => { hits.hidden = true; box.setAttribute("aria-expanded", "false"); box.removeAttribute("aria-activedescendant"); };
  const mark = (at) => {
    active = at;
    [...hits.children].forEach((one, place) => one.setAttribute("aria-selected", String(place === at)));
    if (shown.length) box.setAttribute("aria-activedescendant", `hit-${at}`);
  };
  const list = () => {
    const query = plain(box.value);
    if (!query) { close(); return; }
    shown = matches(query);
    hits.replaceChildren(...shown.map((at, place) => {
      const line = make("li", undefined, { id: `hit-${place}` });
      line.setAttribute("role", "option");
      line.append(named(at), make("span", mentions[at].toLocaleString("en"), { className: "small" }));
      line.addEventListener("pointerdown", (event) => { event.preventDefault(); pick(at); });
      return line;
    }));
    if (!shown.length) hits.append(make("li", "none on this page", { className: "none" }));
    hits.hidden = false;
    box.setAttribute("aria-expanded", "true");
    mark(0);
  };
  box.addEventListener("input", list);
  box.addEventListener("focus", list);
  box.addEventListener("blur", close);
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
    if (hits.hidden || !shown.length) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      mark((active + (event.key === "ArrowDown" ? 1 : shown.length - 1)) % shown.length);
    } else if (event.key === "Enter") {
      event.preventDefault();
      pick(shown[active]);
    }
  });

  const neighbours = (method, at) => [...lists[method].subarray(at * best, at * best + best)].filter((one) => one !== absent);
  const onMap = (at) => at < search.searched && !Number.isNaN(places[2 * at]);

  const points = (codes, size, labels) => ({
    x: codes.map((at) => places[2 * at]), y: codes.map((at) => places[2 * at + 1]), size: codes.map(() => size),
    label: codes.map((at, place) => (place < labels ? short(search.names[at]) : "")),
  });
  const short = (name) => (name.length > 28 ? name.slice(0, 27) + "…" : name);

  const show = (at) => {
    const map = model("map");
    if (!map) return;
    const near = new Set(search.methods.flatMap((method) => neighbours(method, at).filter(onMap)));
    model("picked").data = points(onMap(at) ? [at] : [], 18, 1);
    model("near").data = points([...near].filter((one) => one !== at), 12, 0);
    if (!onMap(at)) return;
    const width = 0.3, [x, y] = [places[2 * at], places[2 * at + 1]];
    map.x_range.setv({ start: x - width, end: x + width });
    map.y_range.setv({ start: y - width, end: y + width });
  };

  const pick = (at) => {
    box.value = search.names[at];
    close();
    const head = make("h3");
    head.append(named(at), make("span", `${mentions[at].toLocaleString("en")} mentions` + (onMap(at) || !model("map") ? "" : ", not on the map: the model has no vector of it"), { className: "small" }));
    const cards = make("div", undefined, { className: "cards" });
    for (const method of search.methods) {
      const card = make("div"), rows = make("ol");
      card.append(make("h4", method));
      const near = neighbours(method, at);
      for (const one of near) {
        const line = make("li"), name = named(one);
        if (one < search.searched) {
          const button = make("button", undefined, { type: "button" });
          button.append(name);
          button.addEventListener("click", () => pick(one));
          line.append(button);
        } else line.append(name);
        rows.append(line);
      }
      card.append(near.length ? rows : make("span", "none", { className: "small" }));
      cards.append(card);
    }
    found.replaceChildren(head, cards);
    found.dataset.at = at;
    show(at);
  };
})();
