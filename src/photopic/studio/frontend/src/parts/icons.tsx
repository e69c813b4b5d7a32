// Line drawings of 20 by 20, one path each.
const PATHS: Record<string, string> = {
  subject: "M10 3l2 4.5 5 .6-3.7 3.3 1 4.9L10 13.900l-4.3 2.4 1-4.900L3 8.100l5-.6z",
  draw: "M3 17l1-4L13.5 3.500a1.8 1.8 0 0 1 2.6 0l.4.4a1.8 1.8 0 0 1 0 2.600L7 16z M12 5l3 3",
  edits: "M3 6h14M3 10h14M3 14h14M7 4v4M13 8v4M6 12v4",
  classifier: "M10 4.500v4M10 8.500L5 13M10 8.500L15 13M10 2.500a1.5 1.5 0 1 0 .01 0M4.5 13a2 2 0 1 0 .01 0M15.5 13a2 2 0 1 0 .01 0",
  guard: "M10 2.500l6.5 2.300v4.700c0 4-2.8 6.7-6.5 8-3.7-1.3-6.5-4-6.5-8V4.800z M7 10l2.2 2.200L13 8",
  runs: "M10 2.500a7.5 7.5 0 1 0 .01 0M10 6v4.300l3 1.7",
  methods: "M3 3h6v6H3zM11 3h6v6h-6zM3 11h6v6H3zM11 11h6v6h-6z",
  system: "M3 4h14v9H3zM7 17h6M10 13v4",
  light: "M10 6.500a3.5 3.5 0 1 0 .01 0M10 1.500v2M10 16.500v2M1.5 10h2M16.5 10h2M4 4l1.4 1.400M14.6 14.600L16 16M4 16l1.4-1.400M14.6 5.400L16 4",
  dark: "M16.5 12.500A7 7 0 1 1 8 3.500a5.5 5.5 0 0 0 8.5 9z",
};

export function Icon({ name }: { name: string }) {
  return (
    <svg class="glyph" viewBox="0 0 20 20" width="20" height="20" aria-hidden="true">
      <path d={PATHS[name] ?? ""} />
    </svg>
  );
}
