-- +goose Up

-- What the request cost by the price table, in billionths of the currency's unit; without a price 0 and no currency.
ALTER TABLE results ADD COLUMN cost INTEGER NOT NULL DEFAULT 0;
ALTER TABLE results ADD COLUMN currency TEXT NOT NULL DEFAULT '';
