-- view: liquidations
-- needs: liquidation_engine
-- One row a liquidation, with the bad debt the insurance fund covered for it. size 1e-6 of the base asset, price and
-- money 1e-6 USDT, margins in basis points. A transaction's n-th LiquidationEvent with bad debt goes with its n-th
-- BadDebtCovered: the program emits the one in the call that emits the other.
with liquidated as (
    select *, sum((bad_debt > 0)::int) over (partition by signature order by ordinal) as debt_number
    from {liquidation_engine}.event_liquidation_event
),
debts as (
    select signature, covered, balance, row_number() over (partition by signature order by ordinal) as debt_number
    from {liquidation_engine}.event_bad_debt_covered
)
select l.position_owner, l.liquidator, l.symbol, l.is_full, l.liquidated_size, l.liquidation_price, l.margin_before,
       l.margin_after, l.liquidator_reward, l.bad_debt, coalesce(d.covered, 0)::decimal(38, 0) as covered,
       d.balance as fund_balance, l.signature, l.ordinal, l.slot, l.block_time
from liquidated l
left join debts d on l.bad_debt > 0 and d.signature = l.signature and d.debt_number = l.debt_number

-- view: insurance_fund_history
-- needs: liquidation_engine
-- What the program said of its fund, one row an event. `amount` was contributed or, of a bad debt, accounted for as
-- covered, which moves no tokens; `balance` is the fund's after it. 1e-6 USDT. Transfers that pay losses in and profits
-- out are in collateral_moves, under the vault whose owner is the fund.
select 'contribution' as cause, contributor as account, amount::decimal(38, 0) as amount, null::decimal(38, 0) as bad_debt,
       balance, signature, ordinal, slot, block_time
from {liquidation_engine}.event_insurance_contribution
union all
select 'bad_debt', position_owner, covered::decimal(38, 0), bad_debt::decimal(38, 0), balance, signature, ordinal, slot,
       block_time
from {liquidation_engine}.event_bad_debt_covered
