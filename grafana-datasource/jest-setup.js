import './.config/jest-setup';
import { configure } from '@testing-library/react';

// What is waited for may take its time where other tests have the machine.
configure({ asyncUtilTimeout: 60_000 });

// Grafana's lists draw only what fits into their height, measure texts on a canvas and watch what scrolls into view;
// jsdom knows of none of it.
const size = { x: 0, y: 0, left: 0, top: 0, right: 300, bottom: 600, width: 300, height: 600 };
Element.prototype.getBoundingClientRect = () => size;
Object.defineProperties(Element.prototype, {
  clientWidth: { value: size.width },
  clientHeight: { value: size.height },
});
HTMLCanvasElement.prototype.getContext = () => ({ measureText: (text) => ({ width: 8 * text.length }) });
global.IntersectionObserver = class {
  observe() {}
  unobserve() {}
  disconnect() {}
};
