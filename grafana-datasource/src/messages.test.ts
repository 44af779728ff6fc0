import { messageOf } from './messages';

it.each<[unknown, string]>([
  [
    {
      status: 403,
      statusText: 'Forbidden',
      config: {},
      data: { message: 'fleet "b": not allowed for this data source' },
    },
    'fleet "b": not allowed for this data source',
  ],
  [{ status: 502, statusText: 'Bad Gateway', config: {}, data: '' }, 'Bad Gateway'],
  [{ status: 502, config: {}, data: undefined }, 'status 502'],
  [new Error('no host answers'), 'no host answers'],
  ['odd', 'odd'],
])('%j reads "%s"', (error, message) => expect(messageOf(error)).toBe(message));
