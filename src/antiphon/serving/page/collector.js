// Runs in the thread of the sound: hands over what the microphone hears, a twentieth of a second at a time.

class Collector extends AudioWorkletProcessor {
  constructor() {
    super();
    this.samples = [];
  }

  process([[channel]]) {
    if (channel) this.samples.push(...channel);
    if (this.samples.length >= sampleRate / 20) {
      this.port.postMessage(Float32Array.from(this.samples));
      this.samples = [];
    }
    return true;
  }
}

registerProcessor("collector", Collector);
