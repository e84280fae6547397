"""One round on all ranks: plan, local training, exchange, distillation, scores, record."""
