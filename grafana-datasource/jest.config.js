// Times and their texts must not depend on where the tests run.
process.env.TZ = 'UTC';

const scaffold = require('./.config/jest.config');
const [transform] = Object.values(scaffold.transform);

module.exports = {
  ...scaffold,
  // Some dependencies come as .mjs alone, which the scaffold's pattern leaves out.
  transform: { '^.+\\.m?[tj]sx?$': transform },
  // Forms full of Grafana's selects take their time on a busy machine.
  testTimeout: 120_000,
};
