// Where the nodes of a tree stand: each depth in its column, parents at the middle of their ways.

const ROW = 36;
const GAP = 52;

/** Gives every node that is open to view its x and y; the size of the whole. `measure(node)` is its width. */
export function arrange(root, measure) {
  const columns = [];
  widths(root, 0, columns, measure);
  const starts = columns.reduce((found, width) => [...found, found.at(-1) + width + GAP], [0]);
  const rows = stand(root, 0, 0, starts);
  return { width: starts.at(-1), height: rows * ROW };
}

function widths(node, depth, columns, measure) {
  columns[depth] = Math.max(columns[depth] ?? 0, measure(node));
  for (const way of ways(node)) widths(way, depth + 1, columns, measure);
}

function stand(node, depth, row, starts) {
  const below = ways(node);
  node.x = starts[depth];
  if (!below.length) {
    node.y = row * ROW;
    return row + 1;
  }
  const next = below.reduce((at, way) => stand(way, depth + 1, at, starts), row);
  node.y = (below[0].y + below.at(-1).y) / 2;
  return next;
}

const ways = (node) => (node.open ? node.ways : []);
