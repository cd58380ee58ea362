// Records from the microphone as samples, and writes them as a WAV file: no codec, nothing that a server must guess.

/** A recording that has begun. `level(value)` is told how loud it is, some times a second. */
export async function record(level) {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
  const context = new AudioContext();
  await context.audioWorklet.addModule(new URL("collector.js", import.meta.url));
  const parts = [];
  const collector = new AudioWorkletNode(context, "collector", { numberOfOutputs: 0 });
  collector.port.onmessage = ({ data }) => {
    parts.push(data);
    level(Math.max(...data.map(Math.abs)));
  };
  context.createMediaStreamSource(stream).connect(collector);
  return {
    /** Ends it; the file. */
    async stop() {
      stream.getTracks().forEach((track) => track.stop());
      await context.close();
      collector.port.onmessage = null; // some of what was heard may still be on its way, and is not in the file
      return new File([wav(parts, context.sampleRate)], "recording.wav", { type: "audio/wav" });
    },
  };
}

/** A WAV file of 16 bits and one channel. */
export function wav(parts, rate) {
  const count = parts.reduce((sum, part) => sum + part.length, 0);
  const view = new DataView(new ArrayBuffer(44 + 2 * count));
  const text = (at, letters) =>
    [...letters].forEach((letter, place) => view.setUint8(at + place, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * count, true);
  text(8, "WAVEfmt ");
  [
    [16, 16, 4],
    [20, 1, 2],
    [22, 1, 2],
    [24, rate, 4],
    [28, 2 * rate, 4],
    [32, 2, 2],
    [34, 16, 2],
  ].forEach(([at, value, bytes]) => (bytes === 4 ? view.setUint32(at, value, true) : view.setUint16(at, value, true)));
  text(36, "data");
  view.setUint32(40, 2 * count, true);
  let at = 44;
  for (const part of parts) {
    for (const sample of part) {
      view.setInt16(at, Math.max(-1, Math.min(1, sample)) * 32767, true);
      at += 2;
    }
  }
  return view.buffer;
}
