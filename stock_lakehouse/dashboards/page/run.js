'use strict';
// The page Run.
