const { app } = require('@azure/functions');
require('a-module-that-is-not-there');

app.timer('never', { schedule: '0 * * * * *', handler: () => {} });
