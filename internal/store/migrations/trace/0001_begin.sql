-- +goose Up
-- The first version of the trace file is empty: its tables belong to the room
-- trace and come with the next number.
SELECT 1;
