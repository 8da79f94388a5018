'use strict';
// The page Compare.
