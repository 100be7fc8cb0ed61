// Estimate sex and age of the face in each PNG with the age and sex network of @vladmandic/face-api.
//
//   npm install --ignore-scripts    once, in this folder or a copy of it (`voicestyle evaluate generation` does it)
//   node judge.mjs FACE.png ...     square images, aligned as in FFHQ
//
// Prints a JSON array, one object per file in the order of the arguments:
//   {"sex": "F" or "M", "probability": of that sex, 0.5 to 1, "age": years}
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import * as tf from '@tensorflow/tfjs';
import { setWasmPaths } from '@tensorflow/tfjs-backend-wasm';
import faceapi from '@vladmandic/face-api/dist/face-api.node-wasm.js';
import { PNG } from 'pngjs';

const MODULES = fileURLToPath(new URL('node_modules/', import.meta.url));
// In an FFHQ-aligned image the face fills these shares of the edge: no face detection is needed.
const [TOP, LEFT, HEIGHT, WIDTH] = [0.176, 0.148, 0.742, 0.703];

function faceCrop(path) {
  const { width, height, data } = PNG.sync.read(readFileSync(path));
  const at = (share, edge) => Math.round(share * edge);
  return tf.tidy(() => tf.tensor(new Uint8Array(data), [height, width, 4], 'int32')
    .slice([at(TOP, height), at(LEFT, width), 0], [at(HEIGHT, height), at(WIDTH, width), 3])); // without alpha
}

process.on('uncaughtException', (error) => { console.error(error.message); process.exit(1); });
setWasmPaths(`${MODULES}@tensorflow/tfjs-backend-wasm/dist/`);
await tf.setBackend('wasm');
await faceapi.nets.ageGenderNet.loadFromDisk(`${MODULES}@vladmandic/face-api/model`);
const judgements = [];
for (const path of process.argv.slice(2)) {
  const face = faceCrop(path);
  const { gender, genderProbability, age } = await faceapi.nets.ageGenderNet.predictAgeAndGender(face);
  judgements.push({ sex: gender === 'male' ? 'M' : 'F', probability: genderProbability, age });
  face.dispose();
}
console.log(JSON.stringify(judgements));
