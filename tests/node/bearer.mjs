// Gives a program that has no flag for a token one: each request without credentials of its own carries $BEARER.
// Use: BEARER=... node --import ./bearer.mjs PROGRAM. Node tells of every request right before it is sent.
import diagnostics from 'node:diagnostics_channel';

const authorization = `Bearer ${process.env.BEARER}`;

diagnostics.subscribe('undici:request:create', ({ request }) => {
  const names = [request.headers].flat().map((value) => String(value).toLowerCase());
  if (!names.some((name) => name.startsWith('authorization'))) request.addHeader('authorization', authorization);
});

diagnostics.subscribe('http.client.request.created', ({ request }) => {
  if (!request.hasHeader('authorization')) request.setHeader('authorization', authorization);
});
